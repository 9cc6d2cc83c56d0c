"""A guest that stops answering, in a test that has stopped the time: every limit is kept."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import paramiko
import pytest
import time_machine
from freezegun import freeze_time

from pytest_lima.errors import CommandTimeoutError, LimaError, ReadyTimeoutError
from pytest_lima.guest import commands, files, ssh
from pytest_lima.guest.address import Address
from pytest_lima.guest.commands import run
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.ssh import NotYetError, connect

STOPPERS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "freezegun": lambda: freeze_time("2001-01-01"),
    "time-machine": lambda: time_machine.travel("2001-01-01", tick=False),
}


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@pytest.fixture(params=[*STOPPERS, "monkeypatch"], autouse=True)
def stopped(request, guest, monkeypatch) -> Iterator[None]:
    """The time stands still from here on, in one of the ways in which tests have it."""
    if request.param in STOPPERS:
        with STOPPERS[request.param]():
            yield
        return
    for name, value in (("time", 1e9), ("monotonic", 1e3), ("perf_counter", 1e3)):
        monkeypatch.setattr(time, name, lambda value=value: value)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    yield


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    begun = _clock()
    yield
    assert _clock() - begun < 10


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(ssh, "_CONNECT_TIMEOUT", 0.3)


@pytest.fixture
def silent(guest) -> Iterator[Address]:
    """Where connections are taken and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address(listener.getsockname()[1], "ann", guest.address.key)


def hanging(guest, command: str) -> None:
    """Have a command of the guest neither read nor print, nor end for a while."""
    (guest.bin / command).write_text("#!/bin/sh\nexec sleep 8\n")
    (guest.bin / command).chmod(0o755)


@pytest.mark.parametrize("line", ["sleep 30", "exec sleep 30; $$"])
def test_a_command(guest, connection, line) -> None:
    with pytest.raises(CommandTimeoutError, match=r"within 0\.3 s"):
        run(connection, line, timeout=0.3)


def test_a_session_that_never_opens(guest, connection, monkeypatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(type(guest.transports[0].server_object), "check_channel_request",
                        lambda *_: int(never.wait(5)))  # fmt: skip
    with pytest.raises(CommandTimeoutError):
        run(connection, "true", timeout=0.3)
    never.set()


def test_a_session_that_never_begins(guest, connection, monkeypatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(type(guest.transports[0].server_object), "check_channel_exec_request",
                        lambda *_: never.wait(5))  # fmt: skip
    with pytest.raises(CommandTimeoutError):
        run(connection, "true", timeout=0.3)
    never.set()


def test_more_than_a_guest_takes(guest, connection, tmp_path: Path, monkeypatch) -> None:
    # Nobody reads what comes: the window closes, and stays so.
    hanging(guest, "tar")
    monkeypatch.setattr("pytest_lima.guest.transfers.TIMEOUT", 0.5)
    (tmp_path / "much").mkdir()
    (tmp_path / "much" / "zeros").write_bytes(bytes(8 * 1024 * 1024))
    with pytest.raises(LimaError, match=r"put .*/target .*") as caught:
        files.put(connection, tmp_path / "much", f"{guest.root}/target")
    assert caught.value.seen == "it did not end in time"


def test_a_directory_that_never_comes(guest, connection, tmp_path: Path, monkeypatch) -> None:
    hanging(guest, "tar")
    monkeypatch.setattr("pytest_lima.guest.transfers.TIMEOUT", 0.5)
    with connection.sftp() as client:
        monkeypatch.setattr(type(client), "stat", lambda *_: _Directory)
    with pytest.raises(LimaError) as caught:
        files.get(connection, "/source", tmp_path / "here")
    assert caught.value.seen == "it did not end in time"


class _Directory:
    st_mode = 0o040755


def test_an_sftp_server_that_stops(guest, connection, impatient) -> None:
    guest.sftp_answers.clear()
    with pytest.raises(LimaError, match="read /run/file") as caught:
        files.read_bytes(connection, "/run/file")
    assert caught.value.seen == "it did not end in time"
    guest.sftp_answers.set()
    (guest.root / "file").write_bytes(b"it is there")
    assert files.read_bytes(connection, str(guest.root / "file")) == b"it is there"


def test_a_server_that_says_nothing(silent, guest, impatient) -> None:
    with pytest.raises(NotYetError):
        connect(silent, guest.keys)


def test_a_login_that_is_never_decided(guest, impatient, monkeypatch) -> None:
    send = paramiko.Transport._send_message

    def undecided(self, message):
        if message.asbytes()[:1] != b"\x34":  # SSH_MSG_USERAUTH_SUCCESS
            send(self, message)

    monkeypatch.setattr(paramiko.Transport, "_send_message", undecided)
    with pytest.raises(NotYetError, match="no SSH on"):
        guest.connect()


def test_a_boot(silent, guest, impatient) -> None:
    waiting = Waiting(_clock() + 1, lambda: None, lambda: None)
    with pytest.raises(ReadyTimeoutError, match=r"no SSH within \d s"):
        waiting.until("SSH", lambda: connect(silent, guest.keys))


def test_what_works_goes_on_working(guest, connection, tmp_path: Path) -> None:
    ran = run(connection, "cat; echo done", input=b"x" * 3_000_000)
    assert len(ran.stdout) == 3_000_005
    data = bytes(range(256)) * 20_000
    files.write_bytes(connection, str(guest.root / "data"), data)
    assert files.read_bytes(connection, str(guest.root / "data")) == data
    assert run(connection, "echo again").stdout == "again\n"
    assert commands.run(connection, "true").duration < 10
