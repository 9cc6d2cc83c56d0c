"""Whatever ends a call ends what it runs in the guest: Ctrl-C, a signal's handler, a callback."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pytest_lima.errors import LimaError
from pytest_lima.guest import files, freeze, sessions
from pytest_lima.guest.commands import run

BASH = shutil.which("bash", path="/usr/bin:/bin")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells sessions")

WAYS = {"stays": {}, "user": {"user": "root"}, "input": {"input": "fed"},
        "both": {"user": "root", "input": b"x" * 3_000_000}}  # fmt: skip


class Enough(BaseException):
    """What pytest-timeout's handler raises is no Exception either."""


@pytest.fixture(autouse=True)
def _bash(guest) -> None:
    if BASH is not None:
        guest.shell = BASH


@pytest.fixture
def alarm() -> Iterator[Callable[..., None]]:
    """Has a signal's handler raise in the main thread, once or more, after so many seconds."""

    def handler(*_: object) -> None:
        raise errors.pop(0)

    def start(seconds: float, *raised: BaseException) -> None:
        errors.extend(raised)
        for number in range(1, len(raised) + 1):
            timers.append(threading.Timer(seconds * number, os.kill, (os.getpid(), signal.SIGUSR1)))
            timers[-1].start()

    errors: list[BaseException] = []
    timers: list[threading.Timer] = []
    before = signal.signal(signal.SIGUSR1, handler)
    yield start
    for timer in timers:
        timer.cancel()
    signal.signal(signal.SIGUSR1, before)


def pids(guest) -> list[int]:
    return [int(word) for word in (guest.root / "pids").read_text().split()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Enough(), ValueError("mine"), SystemExit(3)]
)
def test_a_callback_that_raises_ends_the_command(
    connection, guest, gone, way: str, error: BaseException
) -> None:
    def refuse(name: str, data: bytes) -> None:
        raise error

    line = "sleep 60 & echo $! $BASHPID >pids; echo out; echo err >&2; wait"
    with pytest.raises(type(error)) as caught:
        run(connection, f"trap '' TERM HUP INT PIPE; {line}", cwd=str(guest.root),
            on_output=refuse, **WAYS[way])  # fmt: skip
    assert caught.value is error
    assert not getattr(error, "__notes__", [])
    assert all(gone(pid) for pid in pids(guest))
    for _ in range(3):
        result = run(connection, "echo next; echo err >&2")
        assert (result.stdout, result.stderr) == ("next\n", "err\n")


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_ends_the_command(connection, guest, gone, alarm, way: str) -> None:
    run(connection, "true")
    error = Enough()
    alarm(0.7, error)
    with pytest.raises(Enough) as caught:
        run(connection, f"echo $BASHPID >{guest.root}/pids; exec sleep 60", **WAYS[way])
    assert caught.value is error
    assert all(gone(pid) for pid in pids(guest))
    assert run(connection, "echo next").stdout == "next\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seconds", [0.001, 0.003, 0.01, 0.02, 0.05])
def test_an_interrupt_at_any_moment(connection, guest, alarm, way: str, seconds: float) -> None:
    """Also before it is known that the command runs, and which process it is."""
    mark = f"{guest.root}-{way}-{seconds}"
    with pytest.raises(KeyboardInterrupt):
        alarm(seconds, KeyboardInterrupt())
        run(connection, f"sh -c 'sleep 60' {mark}; true", **WAYS[way])
    time.sleep(0.2)  # that it does not begin later can't be waited for
    running = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
    assert [line for line in running if line and line[-1] == mark] == []
    assert run(connection, "echo next", input="").stdout == "next\n"


def test_a_second_interrupt_does_not_wait(connection, guest, alarm) -> None:
    """What was first is raised, and says that the command may still run."""
    held = threading.Event()

    def stall(command: str, channel) -> bool:
        return "kill -KILL" in command and bool(held.wait(30))

    guest.misbehave = stall
    first = KeyboardInterrupt()
    alarm(0.5, first, KeyboardInterrupt())
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        run(connection, f"echo $$ >{guest.root}/pids; exec sleep 60")
    assert time.monotonic() - begun < 8
    held.set()
    assert caught.value is first
    assert first.__notes__ == [sessions.STILL_RUNS]
    os.kill(pids(guest)[0], signal.SIGKILL)
    assert run(connection, "echo next").stdout == "next\n"


def test_a_command_that_ended_is_not_the_one_that_is_killed(connection, alarm) -> None:
    """An interrupt between two commands: nothing of them is there to be killed."""
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            alarm(0.05, KeyboardInterrupt())
            while True:
                assert run(connection, "echo out").stdout == "out\n"
    assert run(connection, "echo next").stdout == "next\n"


@pytest.mark.parametrize("verb", ["put", "get"])
def test_an_interrupt_ends_the_guests_tar(
    connection, guest, gone, tool, tmp_path, alarm, verb: str
) -> None:
    tool("tar", f"trap '' TERM HUP INT PIPE; echo $$ >{guest.root}/pids; exec sleep 60")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file").write_bytes(os.urandom(4_000_000))
    with pytest.raises(KeyboardInterrupt):
        alarm(0.7, KeyboardInterrupt())
        if verb == "put":
            files.put(connection, tmp_path / "local", f"{guest.root}/there")
        else:
            files.get(connection, str(guest.root), tmp_path / "back")
    assert all(gone(pid) for pid in pids(guest))
    Path(guest.bin / "tar").unlink()
    files.put(connection, tmp_path / "local", f"{guest.root}/there")
    assert run(connection, "echo next").stdout == "next\n"


def test_an_interrupt_in_the_middle_of_a_file(connection, guest, tmp_path, alarm) -> None:
    (guest.root / "file").write_bytes(b"first" * 1000)
    assert len(files.read_bytes(connection, f"{guest.root}/file")) == 5000
    guest.sftp_answers.clear()
    with pytest.raises(KeyboardInterrupt):
        alarm(0.3, KeyboardInterrupt())
        files.read_bytes(connection, f"{guest.root}/file")
    guest.sftp_answers.set()
    (guest.root / "other").write_text("other")
    for _ in range(3):
        assert files.read_bytes(connection, f"{guest.root}/other") == b"other"


def test_an_interrupt_thaws_the_guest(connection, guest, until, tool, alarm) -> None:
    tool("sudo", 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"')
    tool("fsfreeze", f'echo "$*" >>{guest.root}/frozen')
    script = freeze._HOLD.replace("/run/pytest-lima", f"{guest.root}/aside")
    script = script.replace("/etc/machine-id", f"{guest.root}/id").replace("sync\n", "")
    alarm(0.7, KeyboardInterrupt())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(freeze, "_HOLD", script)
        with freeze.frozen(connection):
            time.sleep(30)
    assert until(lambda: "-u /" in (guest.root / "frozen").read_text())
    assert run(connection, "echo next").stdout == "next\n"


def test_a_connection_that_is_lost_meanwhile_is_told(connection, guest) -> None:
    def drop(name: str, data: bytes) -> None:
        guest.drop_connections()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        run(connection, f"echo $$ >{guest.root}/pids; echo out; exec sleep 60", on_output=drop)
    assert caught.value.__notes__ == [sessions.STILL_RUNS]
    os.kill(pids(guest)[0], signal.SIGKILL)
    with pytest.raises(LimaError):
        run(connection, "true")
