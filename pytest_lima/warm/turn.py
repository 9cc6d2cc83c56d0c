"""Waiting for another run that starts the same VM cold, with word on who that is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
    """Wait until this process may start it, as long as each of the others is given for that.

    Args:
        name: Of the instance that waits.
        timeout: Seconds at most for one that starts the same VM; several may, one after another.
        observer: Told who is waited for.
        builder: Says who starts the same VM now.
        done: Whether it is this process's turn; true once.

    Raises:
        ReadyTimeoutError: One of them takes longer; says which.
    """

    def changed(holder: Holder | None) -> bool | None:
        """True if it is our turn, False if another has it now."""
        if done():
            return True
        return None if builder() == holder else False

    ours = False
    while not ours:
        holder = builder()
        observer.phase(name, f"waiting for another run that starts the same VM: {_who(holder)}")
        waiting = Waiting(realtime.monotonic() + timeout, lambda: None, lambda: None)
        try:
            ours = waiting.until("turn to start it", partial(changed, holder))
        except ReadyTimeoutError as error:
            raise ReadyTimeoutError(
                f"{name} is not started: another run has been starting the same VM for "
                f"{timeout:.0f} s",
                seen=str(holder or "it isn't known which run"),
                remedy=f"end or continue {_who(holder)}, which may be suspended; or do without, "
                "with --lima-start=cold",
            ) from error


def _who(holder: Holder | None) -> str:
    return f"process {holder.process.pid}" if holder else "that process"
