"""The one clock of pytest-lima: deadlines, intervals and the time that a guest's clock is set to.

A VM boots and dies in real time, whatever ``freeze_time`` or ``time_machine.travel`` make of the
time in a test, so none of this may be read off ``time.time`` or ``time.monotonic``. freezegun
replaces those wherever a module has them; time-machine replaces the reading of
``CLOCK_REALTIME`` in the interpreter itself. Neither touches ``CLOCK_MONOTONIC`` read by
``clock_gettime``, nor the C library.

No other module of ours uses ``time`` or ``datetime`` for the time. pytest imports this one with
the plugin, so before a test can patch anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime
from time import sleep as _sleep

_NANOSECONDS = 1_000_000_000


def monotonic() -> float:
    """Seconds on a clock that only goes forward; deadlines are times on it."""
    return clock_gettime(CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since the epoch, as the system tells them."""
    return _system_clock()()


def sleep(seconds: float) -> None:
    """Wait; only where there is no condition that can be waited for."""
    _sleep(seconds)


@functools.cache
def _system_clock() -> Callable[[], float]:
    """A reader of the system's clock (clock_gettime(3)) that doesn't go through Python's."""
    import ctypes  # on use: few runs need the time of day

    class Timespec(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    read = ctypes.CDLL(None).clock_gettime

    def tell() -> float:
        found = Timespec()
        read(CLOCK_REALTIME, ctypes.byref(found))
        return float(found.seconds + found.nanoseconds / _NANOSECONDS)

    return tell
