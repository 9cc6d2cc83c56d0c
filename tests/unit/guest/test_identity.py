"""What is said to the guest's waker and what is made of its answers; the rest is in tests/e2e."""

from __future__ import annotations

import json
import math
import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lima.errors import InstanceDiedError, LimaError, StartError
from pytest_lima.guest import identity, waker
from pytest_lima.guest.identity import Kept, NotKeptError
from pytest_lima.guest.ssh import Connection, NotYetError
from pytest_lima.lima.cidata import StartData

if TYPE_CHECKING:
    import paramiko
    from conftest import Guest

KEPT = Kept("the token", "lima-pl-old")


class Waking:
    """A guest's waker behind its socket, which answers as a test wants it to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {"memory": KEPT.token, "disk": KEPT.token}
        self.greeting = b"awake\n"
        self.answer: bytes | None = None
        self.drips = False

    def talk(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            connection.sendall(self.greeting)
            if not (line := lines.readline()):
                return
            self.asked.append(json.loads(line))
            facts = json.dumps({"time": time.time(), **self.facts}).encode() + b"\n"
            if self.answer is not None:
                facts = self.answer
            if not self.drips:
                connection.sendall(facts)
            while self.drips:
                connection.sendall(b" ")
                time.sleep(0.02)


@pytest.fixture
def waking(short_path: Path, serve: Callable[..., None]) -> Waking:
    one = Waking(short_path / "once.sock")
    serve(one.path, one.talk)
    return one


def wake(path: Path, hostname: str = "lima-pl-new", timeout: float = 30) -> float:
    return identity.wake(path, KEPT, hostname, StartData("iid-17", "*nat"), timeout)


def test_a_guest_that_wakes_up_is_told_who_it_is(waking: Waking) -> None:
    assert abs(wake(waking.path)) < 60
    [asked] = waking.asked
    assert (asked["host"], asked["old"], asked["iid"]) == ("lima-pl-new", "lima-pl-old", "iid-17")
    assert asked["nat"] == "*nat"
    assert abs(asked["now"] - time.time()) < 60


def test_one_that_is_put_back_is_told_no_name(waking: Waking) -> None:
    wake(waking.path, KEPT.hostname)
    assert waking.asked[0]["host"] is None


def test_no_two_are_alike(waking: Waking) -> None:
    for _ in range(2):
        wake(waking.path)
    for name, digits in (("machine", 32), ("seed", 64)):
        values = {asked[name] for asked in waking.asked}
        assert len(values) == 2 and {len(value) for value in values} == {digits}


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"memory": "another"}, "its memory is not the kept one"),
        ({"disk": ""}, "its disk is not the kept one"),
        ({"problem": "Operation not permitted"}, "Operation not permitted"),
    ],
)
def test_a_doubtful_guest_is_refused(waking: Waking, facts: dict[str, str], problem: str) -> None:
    waking.facts |= facts
    with pytest.raises(StartError, match=rf"seen: {problem}\n"):
        wake(waking.path)


def test_one_that_hangs_up_is_told_so(waking: Waking) -> None:
    waking.answer = b""
    with pytest.raises(StartError, match="hung up without a word"):
        wake(waking.path)


@pytest.mark.parametrize(
    "answer", [b"half", b"[]\n", b"\xff\n", b"x" * 100000, b"[" * 60000 + b"\n"]
)
def test_an_answer_that_is_none(waking: Waking, answer: bytes) -> None:
    waking.answer = answer
    with pytest.raises(StartError, match=r"did not wake up\n.*once\.sock"):
        wake(waking.path)


def test_something_else_there(waking: Waking) -> None:
    waking.greeting = b"SSH-2.0-OpenSSH_9.2\r\n"
    with pytest.raises(StartError, match="did not wake up"):
        wake(waking.path)
    assert waking.asked == []


def test_one_that_never_ends_its_answer(waking: Waking) -> None:
    waking.drips = True
    begun = time.monotonic()
    with pytest.raises(StartError, match="goes on for too long|timed out"):
        wake(waking.path, timeout=0.5)
    assert time.monotonic() - begun < 10


def test_what_does_not_listen_yet_is_asked_again(short_path: Path) -> None:
    """ssh binds its socket, and listens a moment later."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(short_path / "once.sock"))
        with pytest.raises(NotYetError):
            wake(short_path / "once.sock")


def test_nobody_there(short_path: Path) -> None:
    with pytest.raises(StartError, match="did not wake up"):
        wake(short_path / "once.sock")


def test_its_clock_is_told(waking: Waking) -> None:
    waking.facts["time"] = time.time() - 100
    assert -160 < wake(waking.path) < -99
    for nonsense in ("noon", None, 10**400, math.nan, -math.inf):
        waking.facts["time"] = nonsense
        assert wake(waking.path) == math.inf


class Keeping:
    """A guest that has Python, or not, and a process that waits in it."""

    def __init__(
        self, said: str = "4711\n", complaint: str = "", status: int = 0, killed: int = 0
    ) -> None:
        self.said = said
        self.complaint = complaint
        self.status = status
        self.killed = killed

    def __call__(self, command: str, channel: paramiko.Channel) -> bool:
        if "kill 4711" in command:
            channel.send_exit_status(self.killed)
        else:
            while channel.recv(65536):  # the program
                pass
            channel.sendall(self.said.encode())
            channel.sendall_stderr(self.complaint.encode())
            channel.send_exit_status(self.status)
        channel.close()
        return True


def test_a_process_waits_in_a_guest_while_it_is_kept(guest: Guest, connection: Connection) -> None:
    guest.answer = Keeping()
    tokens = []
    for _ in range(2):
        with identity.keeping(connection, "lima-pl-1") as kept:
            assert kept.hostname == "lima-pl-1"
            assert kept.token in guest.commands[-1]
        assert "kill 4711" in guest.commands[-1]
        tokens.append(kept.token)
    assert tokens[0] != tokens[1]


def test_it_ends_whatever_happens(guest: Guest, connection: Connection) -> None:
    guest.answer = Keeping()
    with pytest.raises(RuntimeError), identity.keeping(connection, "lima-pl-1"):
        raise RuntimeError
    assert "kill 4711" in guest.commands[-1]


@pytest.mark.parametrize(
    ("keeping", "kind", "problem"),
    [
        (Keeping("", "it has no Python 3", waker.UNFIT), NotKeptError, "it has no Python 3"),
        (Keeping("", "No space left on device", 1), LimaError, "No space left"),
        (Keeping("Welcome!"), LimaError, "Welcome!"),
    ],
)
def test_a_guest_that_can_t_be_kept(
    guest: Guest, connection: Connection, keeping: Keeping, kind: type[LimaError], problem: str
) -> None:
    guest.answer = keeping
    with pytest.raises(LimaError, match=problem) as raised:
        with identity.keeping(connection, "lima-pl-1"):
            raise AssertionError
    assert type(raised.value) is kind  # one is for good, the other for now
    assert len(guest.commands) == 1


def test_the_guest_s_python_is_looked_for(guest: Guest, connection: Connection) -> None:
    guest.answer = Keeping()
    with identity.keeping(connection, "lima-pl-1"):
        begun = guest.commands[0]
    # By a shell that finds none: nothing of it is run.
    script = shlex.split(begun)[-1].split("\n")[-2]
    ran = subprocess.run(["/bin/sh", "-c", script], env={"PATH": "/nowhere"}, capture_output=True,
                         text=True)  # fmt: skip
    assert (ran.returncode, ran.stderr) == (waker.UNFIT, "it has no Python 3\n")


def test_one_that_had_ended_before_is_told(guest: Guest, connection: Connection) -> None:
    guest.answer = Keeping(killed=1)
    with pytest.raises(LimaError, match="had ended before"):
        with identity.keeping(connection, "lima-pl-1"):
            pass


@pytest.mark.parametrize("error", [InstanceDiedError("it died"), LimaError("full"), ValueError()])
def test_what_went_wrong_meanwhile_is_what_is_told(
    guest: Guest, connection: Connection, error: Exception
) -> None:
    """Not that its process can't be ended then, for which a dead VM isn't even asked."""
    guest.answer = Keeping(killed=1)
    with pytest.raises(type(error)) as raised:
        with identity.keeping(connection, "lima-pl-1"):
            raise error
    assert raised.value is error
    assert ("kill 4711" in guest.commands[-1]) == (not isinstance(error, InstanceDiedError))


def test_a_guest_that_hangs_up(guest: Guest, connection: Connection) -> None:
    def hang_up(_: str, channel: paramiko.Channel) -> bool:
        channel.close()
        return True

    guest.answer = hang_up
    with pytest.raises(LimaError, match="can't be kept|connection"):
        with identity.keeping(connection, "lima-pl-1"):
            pass
