"""Clean state for each test that asks for it, over the fake limactl; real VMs are in tests/e2e."""

from __future__ import annotations

import pytest


def test_lima_fresh_is_a_vm_for_each_test(pytester: pytest.Pytester, fake_lima):
    pytester.makepyfile(
        """
        import pytest
        seen = []

        @pytest.mark.parametrize("number", range(2))
        def test_it(lima_fresh, number):
            assert lima_fresh.run("test ! -e /etc/dirty").ok
            lima_fresh.run("touch /etc/dirty")
            seen.append(lima_fresh.name)

        def test_they_are_two():
            assert len(set(seen)) == 2
        """
    )
    pytester.runpytest("-v").assert_outcomes(passed=3)
    fake_lima.assert_clean()


def test_lima_fresh_is_of_the_marker_s_kind_and_marked(pytester: pytest.Pytester, fake_lima):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lima(cpus=3)
        def test_it(lima_fresh, request):
            assert lima_fresh.cpus == 3
            assert "lima" not in request.fixturenames

        def test_marked(lima_fresh, request):
            assert request.node.get_closest_marker("lima")
        """
    )
    pytester.runpytest("-m", "lima").assert_outcomes(passed=2)
    assert [call.command for call in fake_lima.calls()].count("create") == 2


def test_lima_fresh_has_the_engines_of_the_run(pytester: pytest.Pytester, fake_lima):
    pytester.makepyfile(
        """
        def test_it(lima_fresh):
            assert lima_fresh.docker_host.startswith("unix://")
        """
    )
    pytester.runpytest("--lima-engine=docker").assert_outcomes(passed=1)


def test_fresh_resets_before_each_test_and_keeps_the_object(pytester: pytest.Pytester, fake_lima):
    pytester.makepyfile(
        """
        import pytest
        seen = set()

        @pytest.fixture(scope="session")
        def user_s_own(lima):
            return lima

        @pytest.mark.lima(fresh=True)
        @pytest.mark.parametrize("number", range(3))
        def test_it(user_s_own, lima, number):
            assert user_s_own is lima
            assert lima.run("test ! -e /etc/dirty").ok
            lima.run("touch /etc/dirty")
            seen.add(lima.name)

        def test_another_shares_none_of_it(lima):
            assert len(seen) == 1
            assert lima.name not in seen
        """
    )
    pytester.runpytest("-v").assert_outcomes(passed=4)
    fake_lima.assert_clean()


# What else there is in LIMA_HOME, waited for.
OTHERS = """
import os, time
from pathlib import Path
import pytest

def others(vm, count):
    deadline = time.monotonic() + 20
    while True:
        found = {path.parents[1].name for path in vm.dir.parent.glob("pl-*/pl/ready.json")}
        if len(found) >= count + 1 or time.monotonic() > deadline:
            return found - {vm.name}
        time.sleep(0.05)
"""


def test_a_standby_is_made_while_a_test_runs_and_is_the_next_one_s(
    pytester: pytest.Pytester, fake_lima
):
    pytester.makepyfile(
        OTHERS
        + """
ready = set()

@pytest.mark.parametrize("number", range(3))
def test_it(lima_fresh, lima_settings, number):
    if number:
        assert lima_fresh.name in ready
    assert lima_fresh.run("test ! -e /etc/dirty").ok
    lima_fresh.run("touch /etc/dirty")
    assert lima_fresh.docker_host.startswith("unix://")
    lima_fresh.reset()
    assert lima_fresh.run("test ! -e /etc/dirty").ok
    ready.update(others(lima_fresh, 1 if number < 2 else 0))
"""
    )
    result = pytester.runpytest("-v", "--lima-standby=1", "--lima-engine=docker",
                                "--lima-max-vms=2")  # fmt: skip
    result.stdout.no_fnmatch_line("*standby * is not used*")
    result.assert_outcomes(passed=3)
    assert result.stdout.str().count("taking the standby") == 2
    assert len({call.argv[-1] for call in fake_lima.calls("start")}) == 3
    fake_lima.assert_clean()


def test_no_standby_beyond_the_bound(pytester: pytest.Pytester, fake_lima):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(lima_fresh, number):
            pass
        """
    )
    result = pytester.runpytest("--lima-standby=3", "--lima-max-vms=1")
    result.assert_outcomes(passed=2)
    assert [call.command for call in fake_lima.calls()].count("create") == 2
    fake_lima.assert_clean()


def test_a_standby_that_nobody_took_ends_with_the_session(pytester: pytest.Pytester, fake_lima):
    pytester.makepyfile(
        OTHERS
        + """
def test_first(lima_fresh):
    assert not others(lima_fresh, 1)

def test_second(lima_fresh): ...
"""
    )
    result = pytester.runpytest("-x", "--lima-standby=1", "--lima-max-vms=2",
                                "--lima-keep=always")  # fmt: skip
    result.assert_outcomes(failed=1)
    assert len(fake_lima.instances()) == 1  # the failed test's, which was to be kept


@pytest.mark.parametrize("value", ["1", "'yes'", "None"])
def test_fresh_is_true_or_false(pytester: pytest.Pytester, value: str):
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.lima(fresh={value})
        def test_it(lima): ...
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fresh=* is not accepted; give True or False*"])


def test_a_bad_marker_is_told_to_lima_fresh_too(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lima(cpus=0)
        def test_it(lima_fresh): ...
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.lima: cpus=0 is not accepted*"])


def test_warm_where_nothing_can_be_kept_is_an_error(pytester: pytest.Pytester, fake_lima):
    """The fake's QEMU has no QMP, so it can't be kept."""
    pytester.makepyfile("def test_it(lima): ...")
    result = pytester.runpytest("--lima-start=warm")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*HostError: *can't be kept for warm starts", "*QMP*"])
    fake_lima.assert_clean()


def test_fresh_tests_between_others_share_one_vm(pytester: pytest.Pytester, fake_lima):
    """As --ff and random orders leave them: each reset, and none left behind."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(items):
            items.sort(key=lambda item: item.name)
        """
    )
    pytester.makepyfile(
        """
        import pytest
        fresh = set()

        def test_1(lima): pass
        def test_3(lima): pass
        def test_5(lima):
            assert len(fresh) == 1
            assert len(list(lima.dir.parent.glob("pl-*/lima.yaml"))) == 2

        @pytest.mark.lima(fresh=True)
        @pytest.mark.parametrize("letter", "a")
        def test_2(lima, letter): check(lima)

        @pytest.mark.lima(fresh=True)
        def test_4(lima): check(lima)

        @pytest.mark.lima(fresh=True)
        def test_6(lima): check(lima)

        def check(lima):
            assert lima.run("test ! -e /etc/dirty").ok
            lima.run("touch /etc/dirty")
            fresh.add(lima.name)
        """
    )
    pytester.runpytest("-v").assert_outcomes(passed=6)
    fake_lima.assert_clean()


def test_a_fresh_vm_is_of_the_template_that_counts_now(pytester: pytest.Pytester, fake_lima):
    two, three = (fake_lima.template(keys={"cpus": cpus}) for cpus in (2, 3))
    pytester.makeconftest(
        f"""
        import pytest

        @pytest.fixture(scope="session", params=[({two!r}, 2), ({three!r}, 3)], ids=["2", "3"])
        def kind(request):
            return request.param

        @pytest.fixture(scope="session")
        def lima_template(kind):
            return kind[0]
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lima(fresh=True)
        def test_it(lima, kind):
            assert lima.cpus == kind[1]
            assert len(list(lima.dir.parent.glob("pl-*/lima.yaml"))) == 1
        """
    )
    pytester.runpytest("-v").assert_outcomes(passed=2)
    fake_lima.assert_clean()
