"""Threads of our own, whatever a test makes of ``threading.Thread``.

A test may replace the class, or its ``start``, to keep its subject from starting threads. A
thread that never runs would be waited for until a deadline has passed. pytest imports this module
with the plugin, so before any of that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import ModuleType

_THERE = dict(vars(threading))


class RealThread(threading.Thread):
    """A thread with the methods that were there when pytest began."""

    start = threading.Thread.start
    run = threading.Thread.run
    join = threading.Thread.join
    is_alive = threading.Thread.is_alive


def start(target: Callable[[], object], name: str) -> RealThread:
    """Have a thread call ``target``.

    It is a daemon: neither the interpreter's end nor ours waits for it.

    Raises:
        RuntimeError: This host allows no further thread.
    """
    thread = RealThread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class RealTimer(RealThread):
    """As ``threading.Timer``, which makes itself a thread by the class that is replaced."""

    def __init__(self, interval: float, function: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._interval = interval
        self._function = function
        self._cancelled = _THERE["Event"]()

    def cancel(self) -> None:
        """Have it do nothing."""
        self._cancelled.set()

    def run(self) -> None:
        """Wait, and call the function."""
        if not self._cancelled.wait(self._interval):
            self._function()


def give_to(modules: Iterable[ModuleType], thread: type[threading.Thread]) -> None:
    """Have a library that starts threads itself start real ones.

    Args:
        modules: Those of it that use ``threading`` by that name.
        thread: The class of its threads.
    """
    there = ModuleType(threading.__name__)
    vars(there).update({**_THERE, "Timer": RealTimer})
    for module in modules:
        vars(module)["threading"] = there
    for name in ("start", "join", "is_alive"):
        setattr(thread, name, vars(RealThread)[name])
