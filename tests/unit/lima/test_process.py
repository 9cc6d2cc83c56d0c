from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from freezegun import freeze_time

from pytest_lima import realtime
from pytest_lima.lima import process

ENV = {"PATH": "/usr/bin:/bin", "ONLY": "this"}


@pytest.fixture(autouse=True)
def _little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_TERM_GRACE", 0.3)


def sh(script: str, timeout: float = 20.0) -> process.Completed:
    return process.run(["sh", "-c", script], env=ENV, timeout=timeout)


def test_status_and_both_outputs() -> None:
    done = sh("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.argv[0] == "sh"
    assert not done.ok
    assert sh("true").ok


def test_a_timeout_of_any_length() -> None:
    assert process.run(["/bin/true"], env={}, timeout=1e9).returncode == 0


def test_a_signal_is_a_negative_status() -> None:
    assert sh("kill -KILL $$").returncode == -signal.SIGKILL


def test_the_environment_is_the_one_given_and_input_is_empty() -> None:
    names = {line.partition("=")[0] for line in sh("env; cat").stdout.splitlines()}
    # The shell itself adds some of these.
    assert {"ONLY", "PATH"} <= names <= {"ONLY", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}


def test_output_of_any_size_and_kind_is_bounded() -> None:
    done = sh("head -c 6000000 /dev/zero; printf '\\377end'")
    assert len(done.stdout) == 4 * 1024 * 1024
    assert done.stdout.endswith("\ufffdend")


def test_an_executable_that_cannot_be_started() -> None:
    with pytest.raises(OSError, match="no-such-thing"):
        process.run(["/no-such-thing"], env=ENV, timeout=1)


def test_a_background_process_does_not_hold_the_call(tmp_path: Path) -> None:
    # It keeps our output open; with pipes the call would wait for it.
    begun = time.monotonic()
    done = sh(f"sleep 60 & echo $! >{tmp_path}/pid; echo done")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert time.monotonic() - begun < 30
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_timeout_ends_the_whole_tree(tmp_path: Path, gone, said) -> None:
    script = f"echo before; sleep 60 & echo $! >>{tmp_path}/pids; echo $$ >>{tmp_path}/pids; wait"
    done = sh(script, timeout=0.8)
    assert (done.returncode, done.stdout) == (None, "before\n")
    assert not done.ok
    assert all(map(gone, said(tmp_path / "pids", 2)))


def test_timeout_ends_what_does_not_listen(tmp_path: Path, gone, said) -> None:
    script = f"trap '' TERM; echo $$ >>{tmp_path}/pids; while :; do sleep 60; done"
    assert sh(script, timeout=0.8).returncode is None
    assert all(map(gone, said(tmp_path / "pids", 1)))


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Heard, also where whoever runs the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_an_exception_such_as_ctrl_c_ends_the_child(tmp_path: Path, gone, said) -> None:
    def interrupt() -> None:
        said(tmp_path / "pids", 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        sh(f"echo $$ >>{tmp_path}/pids; sleep 60")
    assert all(map(gone, said(tmp_path / "pids", 1)))


def test_ctrl_c_in_the_terminal_does_not_reach_a_child(log: Path) -> None:
    """It goes to the terminal's foreground process group, which a session of its own isn't."""
    one = child("sleep 60", log)
    try:
        assert os.getsid(one.pid) == one.pid != os.getsid(0)
    finally:
        one.stop()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def child(script: str, log: Path) -> process.Child:
    with log.open("ab") as file:
        return process.Child(["sh", "-c", script], env=ENV, log=file)


def test_a_child_writes_both_outputs_to_its_log(log: Path) -> None:
    log.write_text("before\n")
    one = child("echo out; echo err >&2; exit 4", log)
    assert one.wait(10) == 4
    assert one.poll() == 4
    assert log.read_text() == "before\nout\nerr\n"


def test_a_child_runs_on_and_is_stopped(log: Path) -> None:
    one = child("sleep 60", log)
    assert one.poll() is None
    assert one.wait(0.01) is None
    assert os.getpgid(one.pid) == one.pid
    one.stop()
    assert one.poll() == -signal.SIGTERM
    assert not psutil.pid_exists(one.pid), "a zombie is left"
    one.stop()


@pytest.mark.parametrize("deaf", ["the child", "a grandchild"])
def test_stopping_ends_the_group_also_where_sigterm_is_not_heard(
    log: Path, tmp_path: Path, deaf: str, gone, said
) -> None:
    deafened = f"trap '' TERM; sleep 60 & echo $! >>{tmp_path}/pids; while :; do wait; done"
    one = child(deafened if deaf == "the child" else f"({deafened}) & sleep 60", log)
    pids = said(tmp_path / "pids", 1)
    one.stop()
    assert one.poll() == -(signal.SIGKILL if deaf == "the child" else signal.SIGTERM)
    assert all(map(gone, pids))


def test_stopping_a_child_that_has_ended_signals_nobody(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pid may be another process's by now."""
    one = child("exit 0", log)
    assert one.wait(10) == 0
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: signalled.append(pid))
    one.stop()
    assert signalled == []


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_child_is_ended_in_time_where_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    if not pidfd:
        monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(process, "_TERM_GRACE", 0.3)
    begun = realtime.monotonic()
    with freeze_time("2001-01-01"):
        env = {"PATH": "/usr/bin:/bin"}
        line = ["sh", "-c", "trap '' TERM; sleep 30 & wait; sleep 30"]
        assert process.run(line, env=env, timeout=0.3).returncode is None
        with (tmp_path / "log").open("ab") as log:
            child = process.Child(line, env=env, log=log)
        assert child.wait(0.2) is None
        child.stop()
        assert child.poll() is not None
    assert realtime.monotonic() - begun < 10


def test_a_directory_that_is_gone_keeps_no_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert process.run(["pwd"], env={"PATH": "/usr/bin:/bin"}, timeout=20).stdout == "/\n"


def test_the_rest_of_a_group_is_ended_while_its_number_is_still_its_own(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone, said
) -> None:
    """The leader goes with SIGTERM; until the last signal it is a zombie, so nobody's number."""
    one = child(f"(trap '' TERM; sleep 60 & echo $! >>{tmp_path}/pids; wait) & sleep 60", log)
    pids = said(tmp_path / "pids", 1)
    signalled = []
    killpg = os.killpg

    def noted(group: int, number: int) -> None:
        status = psutil.Process(group).status() if psutil.pid_exists(group) else "collected"
        signalled.append((number, status))
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", noted)
    one.stop()
    assert signalled[-1] == (signal.SIGKILL, psutil.STATUS_ZOMBIE)
    assert all(map(gone, pids))
    assert not psutil.pid_exists(one.pid)


def zombies() -> list[int]:
    found = []
    for one in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [one.pid] * (one.status() == psutil.STATUS_ZOMBIE)
    return found


def test_children_that_are_left_become_no_zombies(log: Path, until) -> None:
    before = zombies()
    for _ in range(20):
        child("sleep 0.2", log).leave()
        companion = process.Companion(["sh", "-c", "echo hello; read _"], env=ENV)
        assert companion.says(b"hello", 10)
        companion.release()
    assert until(lambda: set(zombies()) <= set(before))


def test_one_that_is_left_lives_on_after_us_without_a_complaint(tmp_path: Path, gone, said) -> None:
    program = f"""
from pytest_lima.lima import process
with open({str(tmp_path / "log")!r}, "wb") as log:
    argv = ["sh", "-c", "echo $$ >>{tmp_path}/pids; exec sleep 60"]
    process.Child(argv, env={ENV!r}, log=log).leave()
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", program],
                          capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [pid] = said(tmp_path / "pids", 1)
    assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)


def test_eight_threads_stop_wait_and_leave_one_child(log: Path) -> None:
    """It is collected once, and nobody signals a number that is another's."""
    for _ in range(10):
        one = child("sleep 60", log)
        with ThreadPoolExecutor(8) as threads:
            for number in range(8):
                threads.submit(*(one.stop,) if number % 2 else (one.wait, 5.0))
        assert one.poll() == -signal.SIGTERM
        assert not psutil.pid_exists(one.pid)


def test_more_than_1024_open_files() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] < 1200:
        pytest.skip("this system allows fewer")
    with contextlib.ExitStack() as files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], 1200), limit[1]))
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
        for _ in range(1100):
            files.enter_context(Path(os.devnull).open("rb"))
        companion = process.Companion(["sh", "-c", "echo hello; read _"], env=ENV)
        assert companion.says(b"hello", 10)
        companion.release()
        assert sh("echo out").stdout == "out\n"
