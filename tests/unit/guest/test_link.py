from __future__ import annotations

import threading

import pytest

from pytest_lima.errors import ConnectionLostError
from pytest_lima.guest.link import Link


class FakeConnection:
    def __init__(self) -> None:
        self.alive = True

    def close(self) -> None:
        self.alive = False


def test_a_link_connects_when_needed_and_again_when_lost() -> None:
    made: list[FakeConnection] = []

    def open_() -> FakeConnection:
        made.append(FakeConnection())
        return made[-1]

    link = Link(open_)  # type: ignore[arg-type]
    assert made == []
    assert link.get() is link.get() is made[0]
    made[0].close()
    assert link.get() is made[1]
    link.close()
    assert not made[1].alive
    assert link.get() is made[2]
    given = FakeConnection()
    link.put(given)  # type: ignore[arg-type]
    assert not made[2].alive
    assert link.get() is given
    link.close()
    link.close()


def test_a_link_that_cannot_connect_tries_again_next_time() -> None:
    fail = [ConnectionLostError("down")]

    def open_() -> FakeConnection:
        if fail:
            raise fail.pop()
        return FakeConnection()

    link = Link(open_)  # type: ignore[arg-type]
    with pytest.raises(ConnectionLostError):
        link.get()
    assert link.get().alive


def test_threads_share_one_connection() -> None:
    made: list[FakeConnection] = []
    begin = threading.Barrier(8)

    def open_() -> FakeConnection:
        made.append(FakeConnection())
        return made[-1]

    link = Link(open_)  # type: ignore[arg-type]

    def use() -> None:
        begin.wait()
        link.get()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
