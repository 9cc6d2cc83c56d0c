"""A login beside everything else: waited for, failed, given up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from pytest_lima.errors import ConnectionLostError, HostKeyError
from pytest_lima.guest.address import Address
from pytest_lima.guest.login import Login
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.ssh import Connection, Hold, connect


class FakeConnection:
    def __init__(self) -> None:
        self.alive = True

    def close(self) -> None:
        self.alive = False


def logins() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "pytest-lima-login"]


def test_one_that_was_made() -> None:
    connection = cast("Connection", FakeConnection())
    login = Login.of(connection)
    assert login.get() is login.get() is connection
    assert not login.lost and not login.failed
    login.close()
    assert not connection.alive
    assert login.lost and not login.failed
    login.close()


def test_it_goes_on_beside_others_and_is_waited_for(guest) -> None:
    may_go_on = threading.Event()

    def open_(hold: Hold) -> Connection:
        assert may_go_on.wait(10)
        return connect(guest.address, guest.keys, hold)

    login = Login.begin(open_)
    assert not login.lost and not login.failed  # it may yet come
    threading.Timer(0.2, may_go_on.set).start()
    begun = time.monotonic()
    with login.get().channel(time.monotonic() + 10):
        assert time.monotonic() - begun > 0.15
    login.close()
    assert login.lost


def test_what_keeps_it_from_being_made_is_raised_where_it_is_needed(guest) -> None:
    keys = replace(guest.keys, keys={"ssh-ed25519": "AAAA"})
    login = Login.begin(lambda hold: connect(guest.address, keys, hold))
    for _ in range(2):
        with pytest.raises(HostKeyError, match="another machine answers"):
            login.get()
    assert login.failed and not login.lost
    login.close()


@pytest.fixture
def silent(guest) -> Iterator[tuple[Address, socket.socket]]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield replace(guest.address, port=listener.getsockname()[1]), listener


def test_one_that_is_given_up_ends_at_once_and_waits_for_nothing(guest, silent, until) -> None:
    address, listener = silent
    waiting = Waiting(time.monotonic() + 60, lambda: None, lambda: None)
    login = Login.begin(
        lambda hold: waiting.until("SSH", lambda: connect(address, guest.keys, hold))
    )
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(5)
        assert peer.recv(4) == b"SSH-"
        begun = time.monotonic()
        login.close()
        with pytest.raises(ConnectionLostError, match="given up"):
            login.get()
        assert time.monotonic() - begun < 2
        while peer.recv(4096):  # to the end of it
            pass
    assert until(lambda: not logins())
    assert login.failed


def test_one_that_comes_too_late_is_closed(until) -> None:
    may_go_on, made = threading.Event(), FakeConnection()

    def open_(_: Hold) -> Any:
        assert may_go_on.wait(10)
        return made

    login = Login.begin(open_)
    login.close()
    may_go_on.set()
    assert until(lambda: not made.alive)
    with pytest.raises(ConnectionLostError):
        login.get()


def test_an_attempt_that_begins_too_late_leaves_nothing_open(guest, silent, until) -> None:
    address, listener = silent
    may_go_on = threading.Event()

    def open_(hold: Hold) -> Connection:
        assert may_go_on.wait(10)
        return connect(address, guest.keys, hold)

    login = Login.begin(open_)
    login.close()
    may_go_on.set()
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(5)
        assert peer.recv(4) == b""  # it was over before a word
    assert until(lambda: not logins())
