"""SIGTERM and SIGHUP end a run that has VMs as Ctrl-C does, with the exit status of the signal.

Python's default is to end without any teardown. Handlers are installed only when the first fixture
of a VM is set up, so a run without one keeps what it had. They are this process's alone: in a
forked child what was there before is back.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import pytest

from pytest_lima import realfiles
from pytest_lima.lima import forks

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Signals:
    """The handlers of one pytest process."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}
        self._owner: forks.Origin | None = None

    def install(self) -> None:
        """Handle both signals, unless they are ignored (nohup) or this is a thread."""
        if self._is_ours or not _is_main_thread():
            return
        self._owner = forks.Origin()
        for number in _SIGNALS:
            previous = signal.getsignal(number)
            # Ours is still under what somebody has put over it.
            if previous not in (signal.SIG_IGN, None, self._end):
                self._previous[number] = previous
                signal.signal(number, self._end)
        forks.let_go_in_children(self)

    def restore(self) -> None:
        """Put back what was there, where nobody has replaced ours meanwhile.

        From then on ours does what was there before, for whoever has kept it to call it.
        """
        if not _is_main_thread():
            return
        self._owner = None
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._end:
                signal.signal(number, previous)

    def let_go(self) -> None:
        """In a forked child: it has no run to end."""
        self.restore()

    @property
    def _is_ours(self) -> bool:
        return self._owner is not None and self._owner.is_here

    def _end(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous.get(number, signal.SIG_DFL)
        if not self._is_ours:
            _pass_on(previous, number, frame)
            return
        try:
            if callable(previous):
                previous(number, frame)
        finally:
            pytest.exit(f"received {signal.Signals(number).name}", returncode=128 + number)


def _pass_on(handler: Any, number: int, frame: FrameType | None) -> None:
    """Do what another handler would."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        realfiles.kill(realfiles.pid(), number)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
