"""Reports: what a failure shows of the VM, and what the summary says of one that was kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pytest_lima.lima import host


def test_a_failed_test_shows_the_logs_of_its_vms(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        def test_plain():
            assert 0

        @pytest.mark.lima(provision="echo said by a provision script")
        def test_with_a_vm(lima):
            lima.run("printf 'a line\\\\033[31m on the console\\\\n' >>/dev/console", check=False)
            assert 0

        def test_with_two(lima, lima_factory):
            lima_factory(name="db")
            assert 0

        def test_passes(lima):
            print("not shown")
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, failed=3)
    text = result.stdout.str()
    reports = dict(re.findall(r"(?s)\n_+ (test_\w+) _+\n(.*?)(?=\n_+ test_\w+ _+\n|\n=)", text))
    assert list(reports) == ["test_plain", "test_with_a_vm", "test_with_two"]
    sections = {name: re.findall(r"\n-+ lima (.*?) -+(?=\n)", report)
                for name, report in reports.items()}  # fmt: skip
    assert sections["test_plain"] == []
    [lima] = re.findall(r"lima (pl-\w+): ready", text)[:1]
    assert sections["test_with_a_vm"] == [
        f"console of {lima}", f"host agent of {lima}", f"cloud-init of {lima}"]  # fmt: skip
    assert "\n[    0.000000] Linux version" in reports["test_with_a_vm"]
    assert "\nStarting Driver" in reports["test_with_a_vm"]
    assert "\nsaid by a provision script\n" in reports["test_with_a_vm"]
    assert len(sections["test_with_two"]) == 6
    assert sum(name.endswith("-db") for name in sections["test_with_two"]) == 3
    # Nothing was kept, so the summary says nothing.
    result.stdout.no_fnmatch_line("* lima -*")
    fake_lima.assert_clean()


def test_a_failed_test_shows_the_logs_of_what_it_has_cloned_itself(pytester, fake_lima):
    # The fake has no memory to keep, so a clone is booted here.
    pytester.makeconftest("""
        import pytest
        from pytest_lima.guest.identity import Kept
        from pytest_lima.warm import fit, snapshots, start
        from pytest_lima.warm.golden import Golden

        @pytest.fixture(scope="session", autouse=True)
        def booted_clones():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(fit, "unfit_machine", lambda *_: None)
                patch.setattr(snapshots, "bake", lambda booted, environ, folder, key, template:
                              Golden(folder, key, booted.info.name, template, Kept("t", "h"),
                                     "ann", {}, "disk-1", "raw", ("pl-1",)))
                patch.setattr(start, "wake_up", lambda order, golden: order.cold(lambda _: None))
                yield
    """)
    pytester.makepyfile("""
        def test_passes(lima):
            lima.clone()

        def test_fails(lima):
            print(f"cloned {lima.clone().name}")
            assert 0

        def test_makes_none(lima):
            assert 0
    """)
    result = pytester.runpytest("--lima-start=cold")
    result.assert_outcomes(passed=1, failed=2)
    text = result.stdout.str()
    [clone] = re.findall(r"(?m)^cloned (pl-\w+)$", text)
    lima, *_ = re.findall(r"lima (pl-\w+): ready", text)
    assert re.findall(r"\n-+ lima console of (.*?) -+(?=\n)", text) == [lima, clone, lima]
    fake_lima.assert_clean()


def test_a_failed_boot_is_five_lines_for_each_test(pytester, fake_lima):
    fake_lima.scenario("provision-failed")
    pytester.makepyfile("def test_one(lima): pass\ndef test_two(lima): pass")
    result = pytester.runpytest()
    result.assert_outcomes(errors=2)
    for name in ("one", "two"):
        result.stdout.re_match_lines([
            rf"_+ ERROR at setup of test_{name} _+",
            r"ProvisionError: a provision script failed: provision\.system/0000000\d",
            r"  seen: Reading package lists\.\.\. \| E: Unable to locate package nosuchpackage",
            r"  do: mend the script; the VM was not handed to any test",
            r"  log: /",
            r"(_+ ERROR at setup of test_two _+|=+ short test summary info =+)",
        ], consecutive=True)  # fmt: skip
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_lima/*")
    # Booted once, and its log outlives it.
    assert len(fake_lima.calls("create")) == 1
    [log] = set(re.findall(r"  log: (.*)", result.stdout.str()))
    assert "E: Unable to locate package" in Path(log).read_text()
    fake_lima.assert_clean()


def test_a_fixture_of_the_users_that_fails_in_the_vm_is_located(pytester, fake_lima):
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def database(lima):
            lima.run("echo no such package >&2; exit 3")
    """)
    pytester.makepyfile("def test_it(database): pass")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        "*conftest.py:5: in database*", "*CommandError: the command returned 3 after *",
        "*  ran: echo no such package *", "*  seen: no such package",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*pytest_lima/*")


def kept_of(result: pytest.RunResult) -> dict[str, tuple[str, str]]:
    """The summary: of each VM, how to get in and how to remove it."""
    text = result.stdout.str().partition(" lima ---")[2]
    found = re.findall(r"\n(\S+) was kept\. To get in:  (.*)\n +To remove:  (.*)", text)
    return {name: (enter, remove) for name, enter, remove in found}


def remove(fake_lima, name: str) -> None:
    host.caller(str(fake_lima.limactl), str(fake_lima.home), os.environ).delete(name)


def test_keep_on_failure_keeps_what_failed(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        def test_passes(lima): pass

        @pytest.mark.lima(cpus=2)
        def test_fails(lima):
            assert 0

        @pytest.mark.lima(cpus=3)
        @pytest.mark.xfail
        def test_is_known_to_fail(lima):
            assert 0

        @pytest.mark.lima(provision="exit 3")
        def test_never_boots(lima): pass

        def test_plain_fails():
            assert 0
    """)
    result = pytester.runpytest("--lima-keep=on-failure")
    result.assert_outcomes(passed=1, failed=2, errors=1, xfailed=1)
    kept = kept_of(result)
    assert sorted(kept) == fake_lima.instances()
    assert len(kept) == 2
    for name, (enter, delete) in kept.items():
        limactl = f"LIMA_HOME={fake_lima.home} {fake_lima.limactl}"
        assert (enter, delete) == (f"{limactl} shell {name}", f"{limactl} delete --force {name}")
        remove(fake_lima, name)
    assert fake_lima.processes() == []


def test_keep_always_and_the_next_run_leaves_it_alone(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): pass")
    first = pytester.runpytest("--lima-keep=always")
    first.assert_outcomes(passed=1)
    [name] = kept_of(first)
    second = pytester.runpytest()
    second.assert_outcomes(passed=1)
    assert kept_of(second) == {}
    assert fake_lima.instances() == [name]
    assert fake_lima.processes()
    remove(fake_lima, name)


def test_teardown_stop_leaves_it_stopped(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest("--lima-teardown=stop")
    result.assert_outcomes(passed=1)
    assert list(kept_of(result)) == fake_lima.instances()
    fake_lima.wait_until(lambda: not fake_lima.processes())


@pytest.mark.parametrize(
    ("scenario", "told"),
    [("start-fails", "failed to initialize kvm"), ("provision-failed", "nosuchpackage")],
)
def test_a_failure_is_told_where_its_logs_cannot_be_kept(pytester, fake_lima, scenario, told):
    fake_lima.scenario(scenario)
    fake_lima.home.mkdir(exist_ok=True)
    (fake_lima.home / "_failures").write_text("no folder can be made here")
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"  seen: *{told}*", "  log: *could not be written (*"])
    fake_lima.assert_clean()
