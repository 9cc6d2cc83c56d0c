"""Whether QEMU has stopped a guest for good and stays, which only its monitor tells.

It does so when its accelerator fails, and when the host has no room for the guest's disk
(``werror=enospc`` is its default). limactl waits on then, and so would we.
"""

from __future__ import annotations

from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.lima import logs
from pytest_lima.lima.qmp import Monitor

_QUIET = 10.0


class Standstill:
    """Of one start of one instance; asked as often as one likes, it asks QEMU seldom."""

    def __init__(self, folder: Path) -> None:
        """Watch the instance in ``folder``, whose console needs not be there yet."""
        self._folder = folder
        self._printed = -1
        self._since = realtime.monotonic()

    def cause(self) -> str:
        """Why QEMU has stopped the guest; empty while it runs, for all one can see."""
        printed, now = logs.size(logs.console(self._folder)), realtime.monotonic()
        if printed != self._printed:
            self._printed, self._since = printed, now
        if now - self._since < _QUIET:
            return ""
        self._since = now  # the next time it has been quiet for as long
        socket = self._folder / "qmp.sock"
        try:
            return _stopped(socket) if socket.is_socket() else ""
        except LimaError:
            return ""  # it ends, or another has its monitor: not stopped, for all we know


def _stopped(socket: Path) -> str:
    with Monitor(socket) as monitor:
        status = monitor.execute("query-status")["status"]
        if status == "internal-error":
            return "QEMU could not go on with the guest: internal-error"
        if status != "io-error":
            return ""
        disks = [disk.get("io-status") for disk in monitor.execute("query-block")]
    if "nospace" in disks:
        return "its disk could not be written: no space left on device"
    return "its disk could not be read or written: io-error"
