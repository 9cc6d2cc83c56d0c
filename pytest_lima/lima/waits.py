"""Waiting for a descriptor, and for a child's end without collecting the child."""

from __future__ import annotations

import contextlib
import os
import select
import sys

from pytest_lima import realtime
from pytest_lima.lima import identity

_LONGEST = 2**31 - 1  # milliseconds; poll(2) takes an int
_PAUSE = 0.01  # where nothing tells of a child's end


def readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, or an end, within a time; of any descriptor.

    ``select`` takes none beyond 1,023, and a suite may well have that many files open.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(min(seconds * 1000, _LONGEST)))


def ends_within(pid: int, seconds: float) -> bool:
    """Whether a child of this process ends in time; it isn't collected by this.

    ``Popen.wait`` collects it, and looks every 50 ms, half of what a quick limactl takes.
    """
    deadline = realtime.monotonic() + seconds
    while not _has_ended(pid):
        if (left := deadline - realtime.monotonic()) <= 0:
            return False
        _pause(pid, left)
    return True


def _has_ended(pid: int) -> bool:
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return identity.of(pid) is None
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # nobody can wait for it: SIGCHLD is ignored, or this is a fork


def _pause(pid: int, seconds: float) -> None:
    """Until the child has ended, or a while."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # an old kernel, or no descriptor is free
            handle = os.pidfd_open(pid)
            try:
                readable(handle, seconds)
            finally:
                os.close(handle)
            return
    realtime.sleep(min(seconds, _PAUSE))
