"""Waiting for another run that starts the same VM cold, with word on who that is."""

from __future__ import annotations

from collections.abc import Callable

from pytest_lima import realtime
from pytest_lima.errors import ReadyTimeoutError
from pytest_lima.guest.readiness import Waiting
from pytest_lima.lima.locks import Holder
from pytest_lima.observer import Observer


def await_turn(
    name: str,
    timeout: float,
    observer: Observer,
    builder: Callable[[], Holder | None],
    done: Callable[[], bool],
) -> None:
    """Wait until this process may start it.

    Args:
        name: Of the instance that waits.
        timeout: Seconds at most.
        observer: Told who is waited for.
        builder: Says who starts the same VM now.
        done: Whether it is this process's turn; true once.

    Raises:
        ReadyTimeoutError: It didn't come; says who is in the way.
    """
    told = ""

    def turn() -> bool | None:
        nonlocal told
        if done():
            return True
        now = f"waiting for another run that starts the same VM: {_who(builder())}"
        if now != told:
            told = now
            observer.phase(name, now)
        return None

    waiting = Waiting(realtime.monotonic() + timeout, lambda: None, lambda: None)
    try:
        waiting.until("turn to start it", turn)
    except ReadyTimeoutError as error:
        holder = builder()
        raise ReadyTimeoutError(
            f"{name} is not started: another run has been starting the same VM for {timeout:.0f} s",
            seen=str(holder or "it isn't known which run"),
            remedy=f"end or continue {_who(holder)}, which may be suspended; or do without, with "
            "--lima-start=cold",
        ) from error


def _who(holder: Holder | None) -> str:
    return f"process {holder.process.pid}" if holder else "that process"
