"""However a run ends, nothing is left, or it says what is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from fakelima.hearing import hearing


@pytest.fixture
def start(pytester):
    """Starts a pytest that can be hit; ends it, should the test fail before."""
    started: list[subprocess.Popen[str]] = []

    def begin(*args: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
        process = subprocess.Popen(hearing(argv), text=True, start_new_session=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("phase", ["creating", "booting", "testing"])
def test_ctrl_c_leaves_nothing(pytester, fake_lima, start, phase):
    if phase == "creating":
        fake_lima.scenario("hang", hang="create")
    elif phase == "booting":
        fake_lima.scenario("slow", boot_seconds=60)
    pytester.makepyfile("""
        import time

        def test_it(lima, capsys):
            with capsys.disabled():
                print("testing", flush=True)
            time.sleep(60)

        def test_later(lima): pass
    """)
    run = start()
    assert any(phase in line for line in run.stdout)
    if phase == "booting":
        fake_lima.wait_until(lambda: list(fake_lima.home.glob("*/qemu.pid")), 10)
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=20)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "KeyboardInterrupt" in output
    assert " lima ---" not in output
    fake_lima.assert_clean()


def test_the_first_failure_may_end_the_run(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        def test_fails(lima):
            assert 0

        @pytest.mark.lima(cpus=2)
        def test_other(lima): pass

        def test_same(lima): pass
    """)
    pytester.runpytest("-x").assert_outcomes(failed=1)
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_fixtures_that_fail_leave_nothing(pytester, fake_lima):
    """Before the boot, after it, and in their teardown."""
    pytester.makepyfile("""
        import pytest

        @pytest.fixture(scope="session")
        def after_boot(lima):
            raise ValueError("after")

        @pytest.fixture(scope="session")
        def in_teardown(lima):
            yield
            raise ValueError("teardown")

        @pytest.fixture(scope="session")
        def lima_overrides():
            raise ValueError("before")

        def test_before(lima): pass
    """)
    pytester.makepyfile(
        test_after="""
        from test_fixtures_that_fail_leave_nothing import after_boot, in_teardown

        def test_passes(in_teardown): pass
        def test_after(after_boot): pass
    """
    )
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=3)
    for where in ("before", "after", "teardown"):
        result.stdout.fnmatch_lines([f"E * ValueError: {where}"])
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_a_failed_boot_that_cannot_be_deleted_tells_both(pytester, fake_lima):
    template = fake_lima.template("start-fails", delete_error="permission denied")
    pytester.makeconftest("""
        import shutil

        def refuse(path, *args, **kwargs):
            raise PermissionError(13, "Permission denied", str(path))

        shutil.rmtree = refuse
    """)
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest_subprocess(f"--lima-template={template}")
    result.assert_outcomes(errors=1)
    [name] = {call.argv[-1] for call in fake_lima.calls("delete")}
    result.stdout.fnmatch_lines([
        "*_ ERROR at setup of test_it _*",
        f"StartError: the VM {name} did not start", "  seen: *[kK][vV][mM]*",
        "*- lima -*", f"{name} could not be deleted", "  seen: permission denied", "  do: *",
    ])  # fmt: skip
