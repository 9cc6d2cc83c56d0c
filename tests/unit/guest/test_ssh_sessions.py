"""sshd allows so many sessions a connection, and frees one a moment after its command ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pytest_lima.errors import CommandTimeoutError
from pytest_lima.guest.commands import run


def in_threads(number: int, work: Callable[[int], None]) -> list[BaseException]:
    """Have all begin at once; what they raised."""
    begin = threading.Barrier(number)
    raised: list[BaseException] = []

    def one(index: int) -> None:
        begin.wait()
        try:
            work(index)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize(("limit", "times"), [(1, 1), (10, 4)])
def test_a_session_that_is_not_free_yet_is_waited_for(guest, limit: int, times: int) -> None:
    """Eight threads that run one command after the other, as many as we let run at once."""
    guest.max_sessions, guest.reaping = limit, 0.1
    connection = guest.connect()
    outputs: list[str] = []

    def work(index: int) -> None:
        outputs.extend(run(connection, f"echo {index}.{n}").stdout for n in range(times))

    raised = in_threads(8, work)
    assert [str(error) for error in raised] == []
    assert sorted(outputs) == [f"{index}.{n}\n" for index in range(8) for n in range(times)]
    assert guest.refused > 0  # else this has shown nothing
    assert len(guest.commands) == 8 * times  # refused is not started: none ran twice
    connection.close()


def test_a_session_that_never_comes_free_is_waited_for_until_the_deadline(guest) -> None:
    guest.max_sessions = 0
    connection = guest.connect()
    begun = time.monotonic()
    with pytest.raises(CommandTimeoutError, match="did not end within 0.5 s"):
        run(connection, "echo never", timeout=0.5)
    assert time.monotonic() - begun >= 0.5
    assert guest.refused > 1
    assert guest.commands == []
    guest.max_sessions = 1
    assert run(connection, "echo now").stdout == "now\n"
    connection.close()


def test_a_refused_session_is_not_asked_for_without_a_pause(guest) -> None:
    guest.max_sessions = 0
    connection = guest.connect()
    with pytest.raises(CommandTimeoutError):
        run(connection, "true", timeout=0.5)
    assert guest.refused < 200
    connection.close()
