"""What is said to the guest's waker and what is made of its answers; the rest is in tests/e2e."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lima.errors import ConnectionLostError, LimaError, StartError
from pytest_lima.guest import identity
from pytest_lima.guest.identity import Kept, NotKeptError
from pytest_lima.guest.ssh import Connection

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
        self.answer: bytes | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                self.asked.append(json.loads(lines.readline()))
                answer = json.dumps({"time": time.time(), **self.facts}).encode() + b"\n"
                connection.sendall(answer if self.answer is None else self.answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def waking(short_path: Path) -> Iterator[Waking]:
    with contextlib.closing(Waking(short_path / "once.sock")) as one:
        yield one


def test_a_guest_that_wakes_up_is_told_who_it_is(waking: Waking) -> None:
    assert abs(identity.wake(waking.path, KEPT, "lima-pl-new", "iid-17")) < 60
    [asked] = waking.asked
    assert (asked["host"], asked["old"], asked["iid"]) == ("lima-pl-new", "lima-pl-old", "iid-17")
    assert abs(asked["now"] - time.time()) < 60


def test_one_that_is_put_back_is_told_no_name(waking: Waking) -> None:
    identity.wake(waking.path, KEPT, KEPT.hostname)
    assert waking.asked[0]["host"] is None


def test_no_two_are_alike(waking: Waking) -> None:
    for _ in range(2):
        identity.wake(waking.path, KEPT, "lima-pl-new")
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
    with pytest.raises(StartError, match=problem):
        identity.wake(waking.path, KEPT, "lima-pl-new")


@pytest.mark.parametrize("answer", [b"", b"half", b"[]\n", b"\xff\n", b"x" * 100000])
def test_an_answer_that_is_none(waking: Waking, answer: bytes) -> None:
    waking.answer = answer
    with pytest.raises(StartError, match=r"did not wake up\n.*once\.sock"):
        identity.wake(waking.path, KEPT, "lima-pl-new")


def test_nobody_there(short_path: Path) -> None:
    with pytest.raises(StartError, match="did not wake up"):
        identity.wake(short_path / "once.sock", KEPT, "lima-pl-new")


def test_its_clock_is_told(waking: Waking) -> None:
    waking.facts["time"] = time.time() - 100
    assert -160 < identity.wake(waking.path, KEPT, "lima-pl-new") < -99
    for nonsense in ("noon", None, 10**400):
        waking.facts["time"] = nonsense
        assert identity.wake(waking.path, KEPT, "lima-pl-new") == math.inf


class Keeping:
    """A guest that has Python, or not, and a process that waits in it."""

    def __init__(self, said: str = "4711\n", complaint: str = "", killed: int = 0) -> None:
        self.said = said
        self.complaint = complaint
        self.killed = killed

    def __call__(self, command: str, channel: paramiko.Channel) -> bool:
        if "kill 4711" in command:
            channel.send_exit_status(self.killed)
        else:
            while channel.recv(65536):  # the program
                pass
            channel.sendall(self.said.encode())
            channel.sendall_stderr(self.complaint.encode())
            channel.send_exit_status(1 if self.complaint or not self.said else 0)
        channel.close()
        return True


def test_a_process_waits_in_a_guest_while_it_is_kept(guest: Guest, connection: Connection) -> None:
    guest.misbehave = Keeping()
    tokens = []
    for _ in range(2):
        with identity.keeping(connection, "lima-pl-1") as kept:
            assert kept.hostname == "lima-pl-1"
            assert kept.token in guest.commands[-1]
        assert "kill 4711" in guest.commands[-1]
        tokens.append(kept.token)
    assert tokens[0] != tokens[1]


def test_it_ends_whatever_happens(guest: Guest, connection: Connection) -> None:
    guest.misbehave = Keeping()
    with pytest.raises(RuntimeError), identity.keeping(connection, "lima-pl-1"):
        raise RuntimeError
    assert "kill 4711" in guest.commands[-1]


@pytest.mark.parametrize(
    ("keeping", "problem"),
    [
        (Keeping(said=""), "it has no Python 3"),
        (Keeping(complaint="it is read-only"), "it is read-only"),
        (Keeping(said="Welcome!"), "Welcome!"),
    ],
)
def test_a_guest_that_can_t_be_kept(
    guest: Guest, connection: Connection, keeping: Keeping, problem: str
) -> None:
    guest.misbehave = keeping
    with pytest.raises(NotKeptError, match=problem), identity.keeping(connection, "lima-pl-1"):
        raise AssertionError
    assert len(guest.commands) == 1


def test_one_that_does_not_end_is_told(guest: Guest, connection: Connection) -> None:
    guest.misbehave = Keeping(killed=1)
    with pytest.raises(LimaError, match="waker does not end"):
        with identity.keeping(connection, "lima-pl-1"):
            pass


def test_a_guest_that_hangs_up(guest: Guest, connection: Connection) -> None:
    def hang_up(_: str, channel: paramiko.Channel) -> bool:
        channel.close()
        return True

    guest.misbehave = hang_up
    with pytest.raises((NotKeptError, ConnectionLostError)):
        with identity.keeping(connection, "lima-pl-1"):
            pass
