"""pytest-timeout: its timer measures tests, not the boot of their VM."""

from __future__ import annotations

import pytest

pytest.importorskip("pytest_timeout")

SLOW = 2.5
METHODS = ("signal", "thread")


@pytest.fixture
def slow(fake_lima, monkeypatch):
    """A guest that boots for longer than a test may run."""
    fake_lima.scenario("slow", boot_seconds=SLOW)
    return fake_lima


@pytest.mark.parametrize("method", METHODS)
def test_a_boot_is_not_counted(pytester, slow, method):
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def database(lima_factory):
            return lima_factory(name="db")
    """)
    pytester.makepyfile("""
        import time, pytest

        def test_shared(lima): time.sleep(1)
        def test_fresh(lima_fresh): time.sleep(1)
        def test_by_name(request): request.getfixturevalue("lima").run("true")

        @pytest.mark.timeout(1.5)
        def test_factory(database): time.sleep(1)

        @pytest.mark.lima(fresh=True)
        class TestFresh:
            def test_one(self, lima): pass
            def test_reset(self, lima): time.sleep(1)
    """)
    result = pytester.runpytest_subprocess("--timeout=2", f"--timeout-method={method}")
    result.assert_outcomes(passed=6)
    slow.assert_clean()


@pytest.mark.parametrize("args", [(), ("-o", "timeout_func_only=true")])
def test_the_test_itself_is_counted(pytester, slow, args):
    pytester.makeconftest("""
        import pytest, time

        @pytest.fixture
        def hangs(lima):
            time.sleep(30)
    """)
    pytester.makepyfile("""
        import time

        def test_hangs(lima): time.sleep(30)
        def test_hangs_in_the_guest(lima): lima.run("sleep 30")
        def test_passes(lima): time.sleep(1)
        def test_plain(): pass
    """)
    pytester.makepyfile(test_setup="def test_it(hangs): pass")
    selected = () if args else ("test_setup.py",)
    result = pytester.runpytest_subprocess(
        "--timeout=2", *args, "test_the_test_itself_is_counted.py", *selected
    )
    result.assert_outcomes(passed=2, failed=2, errors=len(selected))
    result.stdout.fnmatch_lines([
        ">*def test_hangs(lima): time.sleep(30)", "E*Timeout*2*s*",
        ">*lima.run(*sleep 30*", "E*Timeout*2*s*",
    ])  # fmt: skip
    slow.assert_clean()


def test_a_boot_that_fails_leaves_no_timer_behind(pytester, fake_lima):
    fake_lima.scenario("never-ready")
    pytester.makepyfile("""
        import time

        def test_never(lima): pass
        def test_plain(): time.sleep(1)
    """)
    result = pytester.runpytest_subprocess("--timeout=1.5", "--lima-timeout=3")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["ReadyTimeoutError: *"])


def test_without_a_timeout_nothing_is_set(pytester, slow):
    pytester.makepyfile("""
        import signal

        def test_it(lima):
            assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    pytester.runpytest_subprocess("--timeout=0").assert_outcomes(passed=1)
    func_only = pytester.runpytest_subprocess("--timeout=2", "-o", "timeout_func_only=true", "-k",
                                              "nothing or it")  # fmt: skip
    func_only.assert_outcomes(failed=1)  # in the test's own time there is one
