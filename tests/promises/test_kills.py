"""Promises 1 to 7: nothing is left, whatever ends pytest."""

from __future__ import annotations

import os
import signal
import time

import pytest

SLOW = """
import time

def test_it(lima):
    print("testing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("phase", ["creating", "booting", "provisioning", "testing"])
def test_01_a_kill_leaves_nothing(pytester, fake_lima, start, soon, phase):
    if phase == "creating":
        fake_lima.scenario("hang", hang="create")
    elif phase == "booting":
        fake_lima.scenario("slow", boot_seconds=60)
    elif phase == "provisioning":
        fake_lima.scenario("slow", boot_seconds=0, provision_seconds=60)
    pytester.makepyfile(SLOW)
    run = start("-s")
    run.await_line(phase)
    run.hit(signal.SIGKILL)
    run.ends()
    soon()


@pytest.mark.parametrize("use", ["snapshot('a')", "clone()"])
def test_01_a_kill_amid_a_snapshot_leaves_nothing(pytester, fake_lima, start, soon, use):
    """The fake's memory can't be kept: half of it is written, and pytest gone."""
    pytester.makeconftest("""
        import os, signal
        from pytest_lima.warm import fit, snapshots

        def bake(booted, environ, folder, key, template):
            (folder / "state").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

        fit.unfit_machine = lambda *_: None
        snapshots.bake = bake
    """)
    pytester.makepyfile(f"def test_it(lima): lima.{use}")
    run = start("-s", "--lima-start=cold")
    assert run.ends() == -signal.SIGKILL
    soon()


@pytest.mark.parametrize("state", ["made", "ready"])
def test_01_a_kill_leaves_no_standby(pytester, fake_lima, start, soon, state):
    pytester.makepyfile("""
        import time

        def test_first(lima_fresh):
            print("testing", flush=True)
            time.sleep(60)

        def test_second(lima_fresh): ...
    """)
    run = start("-s", "--lima-standby=1", "--lima-max-vms=2")
    run.await_line("testing")
    file = "pl/ready.json" if state == "ready" else "lima.yaml"
    fake_lima.wait_until(lambda: len(list(fake_lima.home.glob(f"pl-*/{file}"))) == 2, 20)
    run.hit(signal.SIGKILL)
    run.ends()
    soon()


def test_02_what_a_killed_reaper_leaves_goes_with_the_next_run(pytester, fake_lima, start):
    pytester.makepyfile(SLOW)
    run = start("-s")
    run.await_line("testing")
    [reaper] = run.reapers()
    reaper.kill()
    run.hit(signal.SIGKILL)
    run.ends()
    [name] = fake_lima.instances()
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count(f"removed {name}, which a killed run had left") == 1
    fake_lima.assert_clean()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("phase", ["booting", "testing"])
def test_03_a_cancelled_job_tears_down(pytester, fake_lima, start, name, status, phase):
    if phase == "booting":
        fake_lima.scenario("slow", boot_seconds=60)
    pytester.makepyfile(SLOW)
    run = start("-s")
    run.await_line(phase)
    run.hit(getattr(signal, name))
    assert run.ends(10) == status
    assert f"received {name}" in run.output
    fake_lima.assert_clean()


def test_03_a_handler_of_the_project_s_own_is_called_first(pytester, fake_lima, start):
    pytester.makeconftest("""
        import signal
        signal.signal(signal.SIGTERM, lambda *_: print("theirs", flush=True))
    """)
    pytester.makepyfile(SLOW)
    run = start("-s")
    run.await_line("testing")
    run.hit(signal.SIGTERM)
    assert run.ends(10) == 143
    assert "theirs" in run.output
    fake_lima.assert_clean()


def test_03_signals_are_as_before_without_a_vm(pytester, start):
    pytester.makepyfile("""
        import signal

        def test_it():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    """)
    run = start()
    assert run.ends() == 0, run.output


def test_04_ctrl_c_once(pytester, fake_lima, start):
    pytester.makepyfile(SLOW)
    run = start("-s")
    run.await_line("testing")
    os.killpg(run.pid, signal.SIGINT)
    assert run.ends(10) == pytest.ExitCode.INTERRUPTED
    fake_lima.assert_clean()


def test_04_ctrl_c_twice(pytester, fake_lima, start, soon):
    """The second comes while a fixture of the user's is being torn down."""
    pytester.makepyfile("""
        import time
        import pytest

        @pytest.fixture
        def slow(lima):
            yield
            print("tearing down", flush=True)
            time.sleep(60)

        def test_it(slow):
            print("testing", flush=True)
            time.sleep(60)
    """)
    run = start("-s")
    run.await_line("testing")
    os.killpg(run.pid, signal.SIGINT)
    run.await_line("tearing down")
    os.killpg(run.pid, signal.SIGINT)
    run.ends(10)
    fake_lima.assert_clean()


def test_04_ctrl_c_again_and_again(pytester, fake_lima, start, soon):
    """Into our own deletion too."""
    fake_lima.scenario("hang", hang="delete")
    pytester.makepyfile(SLOW)
    run = start("-s")
    run.await_line("testing")
    for _ in range(8):
        if run.process.poll() is None:
            os.killpg(run.pid, signal.SIGINT)
            time.sleep(0.3)
    fake_lima.scenario("ok")
    run.close()
    soon()


def test_07_an_exit_without_teardown_leaves_nothing(pytester, fake_lima, start, soon):
    """As pytest-timeout does with its method "thread"."""
    pytester.makepyfile("import os\ndef test_it(lima): os._exit(1)")
    run = start()
    assert run.ends() == 1
    soon()
