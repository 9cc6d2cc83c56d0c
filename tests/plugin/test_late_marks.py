"""Markers that come after pytest has parametrised a test: honoured, or refused in words."""

from __future__ import annotations

import re


def test_a_single_parameter_has_a_marker(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("n", [4, pytest.param(2, marks=pytest.mark.lima(cpus=2)), 4])
        def test_shared(lima, n):
            assert lima.cpus == n

        @pytest.mark.parametrize("n", [
            pytest.param(1, marks=[pytest.mark.lima(cpus=1), pytest.mark.lima(memory=2)]),
            pytest.param(3, marks=pytest.mark.lima(cpus=3)),
        ])
        def test_fresh(lima_fresh, n):
            assert lima_fresh.cpus == n

        @pytest.mark.lima(memory=3)
        @pytest.mark.parametrize("n", [4, pytest.param(2, marks=pytest.mark.lima(cpus=2))])
        def test_merged(lima, n):
            assert (lima.cpus, lima.memory) == (n, 3072)

        @pytest.mark.parametrize("n", [
            1, pytest.param(2, marks=pytest.mark.lima),
            pytest.param(3, marks=pytest.mark.lima(cpus=3))])
        def test_only_some_need_one(n, request):
            assert ("lima" in request.fixturenames) == (n > 1)
            if n > 1:
                assert request.node.funcargs["lima"].cpus == {2: 4, 3: 3}[n]
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=10)
    assert len(fake_lima.calls("create")) == 4 + 2 + 1
    fake_lima.assert_clean()


def test_parameters_of_one_spec_share_a_vm_and_are_grouped(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        two = pytest.param(2, marks=pytest.mark.lima(cpus=2))

        @pytest.mark.parametrize("n", [4, two, 4, two])
        def test_it(lima, n, request):
            print(f"name {lima.name} {n}")
            assert lima.cpus == n
    """)
    result = pytester.runpytest("-s")
    result.assert_outcomes(passed=4)
    names = re.findall(r"name (pl-\w+)", result.stdout.str())
    assert names[0] == names[1] != names[2] == names[3]
    assert len(fake_lima.calls("create")) == 2


def test_hooks_of_the_collection_add_markers(pytester, fake_lima):
    pytester.makeconftest("""
        import pytest

        def pytest_itemcollected(item):
            if "early" in item.name:
                item.add_marker(pytest.mark.lima(cpus=2))

        def pytest_collection_modifyitems(items):
            for item in items:
                if "late" in item.name:
                    item.add_marker(pytest.mark.lima(cpus=3))
                if "clean" in item.name:
                    item.add_marker(pytest.mark.lima(fresh=True))
    """)
    pytester.makepyfile("""
        import pytest
        pytestmark = pytest.mark.lima(memory=1)

        def test_early(lima): assert (lima.cpus, lima.memory) == (2, 1024)
        def test_late(lima): assert (lima.cpus, lima.memory) == (3, 1024)
        def test_dirty(lima): lima.write_text("/tmp/dirt", "")
        def test_clean_one(lima): lima.run("! test -e here && touch here")
        def test_clean_two(lima): lima.run("! test -e here && touch here")
    """)
    pytester.makepyfile(test_bare="""
        def test_needs_none(): pass
        def test_late_and_bare(request):
            assert "lima" in request.fixturenames
    """)  # fmt: skip
    result = pytester.runpytest()
    result.assert_outcomes(passed=6, errors=1)
    result.stdout.fnmatch_lines([
        "*ERROR at setup of test_late_and_bare*",
        "@pytest.mark.lima: arguments need a test that *or was marked when that was over*",
    ])  # fmt: skip
    fake_lima.assert_clean()


def test_a_bare_marker_of_a_hook_gives_the_vm(pytester, fake_lima):
    pytester.makeconftest("""
        def pytest_collection_modifyitems(items):
            items[0].add_marker("lima")
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("n", [1, 2])
        def test_it(request, n):
            assert ("lima" in request.node.funcargs) == (n == 1)
    """)
    pytester.runpytest().assert_outcomes(passed=2)
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_a_parametrised_lima_is_refused_with_or_without_a_marker(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize(
            "lima", [pytest.param({"cpus": 2}, marks=pytest.mark.lima(cpus=2))], indirect=True)
        def test_it(lima): pass
    """)
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.lima*"])
    assert fake_lima.calls("create") == []


def test_a_marker_that_a_fixture_adds_is_refused(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.fixture(autouse=True)
        def bigger(request):
            if "bigger" in request.node.name:
                request.node.add_marker(pytest.mark.lima(cpus=8))

        def test_as_it_is(lima): pass
        def test_bigger(lima): raise AssertionError("ran")
        def test_bigger_without_one(): pass
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["@pytest.mark.lima: it was added when the VM of the test was *"])
    result.stdout.no_fnmatch_line("*ran*")


def test_a_wrong_late_marker_fails_its_test_alone(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.lima(cpu=2))])
        def test_it(lima, n): pass
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["@pytest.mark.lima: an unexpected keyword argument 'cpu'"])
    assert len(fake_lima.calls("create")) == 1


def test_of_several_templates_each_has_the_parameters_spec(pytester, fake_lima):
    one, two = fake_lima.template(keys={"cpus": 1}), fake_lima.template(keys={"cpus": 2})
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("n", [0, pytest.param(2048, marks=pytest.mark.lima(memory=2))])
        def test_it(lima, n, record_property):
            print("seen", lima.cpus, lima.memory)
            assert not n or lima.memory == n
    """)
    result = pytester.runpytest("-s", f"--lima-template={one}", f"--lima-template={two}")
    result.assert_outcomes(passed=4)
    seen = {*re.findall(r"seen (\d+) (\d+)", result.stdout.str())}
    assert len(seen) == 4 and {cpus for cpus, _ in seen} == {"1", "2"}
