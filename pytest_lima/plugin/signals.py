"""SIGTERM and SIGHUP end a run that has VMs as Ctrl-C does, with the exit status of the signal.

Python's default is to end without any teardown. Handlers are installed only when the first VM
is asked for, so a run without one keeps what it had.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Signals:
    """The handlers of one pytest process."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Handle both signals, unless they are ignored (nohup) or this is a thread."""
        if self._previous or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            previous = signal.getsignal(number)
            if previous not in (signal.SIG_IGN, None):
                self._previous[number] = previous
                signal.signal(number, self._end)

    def restore(self) -> None:
        """Put back what was there, where nobody has replaced ours meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._end:
                signal.signal(number, previous)
        self._previous.clear()

    def _end(self, number: int, frame: FrameType | None) -> None:
        previous: Callable[..., object] | object = self._previous.get(number)
        try:
            if callable(previous):
                previous(number, frame)
        finally:
            pytest.exit(f"received {signal.Signals(number).name}", returncode=128 + number)
