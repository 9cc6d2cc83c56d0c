"""A call over a forwarded socket of the guest, which may answer as it likes."""

from __future__ import annotations

import socket
from typing import Any

from pytest_lima import realtime
from pytest_lima.realsockets import RealSocket


class CallSocket(RealSocket):
    """A Unix socket whose timeout is for a whole call; Python's is from byte to byte."""

    def __init__(self, timeout: float) -> None:
        """For a call of ``timeout`` seconds that begins now."""
        super().__init__(socket.AF_UNIX)
        self.settimeout(timeout)
        self._deadline = realtime.monotonic() + timeout

    def recv(self, *args: Any) -> bytes:
        """As any socket's, within what is left of the time."""
        self._shorten()
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        """As any socket's, within what is left of the time."""
        self._shorten()
        return super().recv_into(*args)

    def _shorten(self) -> None:
        remaining = self._deadline - realtime.monotonic()
        if remaining <= 0:
            raise TimeoutError("it goes on for too long")
        self.settimeout(remaining)
