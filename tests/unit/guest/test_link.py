from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from pytest_lima.errors import ConnectionLostError, HostKeyError
from pytest_lima.guest.link import Link
from pytest_lima.guest.login import Login
from pytest_lima.guest.ssh import Connection, Hold


class FakeConnection:
    def __init__(self) -> None:
        self.alive = True

    def close(self) -> None:
        self.alive = False


def test_a_link_connects_when_needed_and_again_when_lost() -> None:
    made: list[FakeConnection] = []

    def open_(_: Hold) -> Any:
        made.append(FakeConnection())
        return made[-1]

    link = Link(open_)
    assert made == []
    assert link.get() is link.get() is made[0]
    made[0].close()
    assert link.get() is made[1]
    link.close()
    assert not made[1].alive
    assert link.get() is made[2]
    given = FakeConnection()
    link.put(Login.of(cast("Connection", given)))
    assert not made[2].alive
    assert link.get() is given
    link.close()
    link.close()


def test_a_link_that_cannot_connect_tries_again_next_time() -> None:
    fail = [ConnectionLostError("down")]

    def open_(_: Hold) -> Any:
        if fail:
            raise fail.pop()
        return FakeConnection()

    link = Link(open_)
    with pytest.raises(ConnectionLostError):
        link.get()
    assert link.get().alive


def test_one_that_is_being_made_is_waited_for_by_who_needs_it() -> None:
    may_go_on = threading.Event()
    given = FakeConnection()

    def slow(_: Hold) -> Any:
        assert may_go_on.wait(10)
        return given

    link = Link(slow)
    link.put(Login.begin(slow))
    got: list[Connection] = []
    thread = threading.Thread(target=lambda: got.append(link.get()))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and got == []
    may_go_on.set()
    thread.join(10)
    assert got == [given]


def test_what_kept_it_from_being_made_is_told_once() -> None:
    def fails(_: Hold) -> Any:
        raise HostKeyError("another machine")

    link = Link(lambda _: cast("Connection", FakeConnection()))
    login = Login.begin(fails)
    with pytest.raises(HostKeyError):
        login.get()  # it has failed before anybody asks the link
    link.put(login)
    with pytest.raises(HostKeyError, match="another machine"):
        link.get()
    assert link.get().alive


def test_one_that_is_being_made_is_given_up_at_once() -> None:
    may_go_on, given = threading.Event(), FakeConnection()

    def slow(_: Hold) -> Any:
        assert may_go_on.wait(10)
        return given

    link = Link(slow)
    errors: list[Exception] = []

    def use() -> None:
        with pytest.raises(ConnectionLostError, match="given up") as caught:
            link.get()
        errors.append(caught.value)

    thread = threading.Thread(target=use)
    thread.start()
    while link._login is None:
        thread.join(0.01)
    link.close()
    thread.join(10)
    assert errors and not may_go_on.is_set()
    assert given.alive
    may_go_on.set()
    while given.alive:  # which nobody wants any more
        thread.join(0.01)


def test_threads_share_one_connection() -> None:
    made: list[FakeConnection] = []
    begin = threading.Barrier(8)

    def open_(_: Hold) -> Any:
        made.append(FakeConnection())
        return made[-1]

    link = Link(open_)

    def use() -> None:
        begin.wait()
        link.get()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
