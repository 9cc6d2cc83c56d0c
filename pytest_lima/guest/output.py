"""What a command prints on both outputs, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import ConnectionLostError

if TYPE_CHECKING:
    import paramiko

OnOutput = Callable[[str, bytes], None]

_CHUNK = 256 * 1024


class Output:
    """Collects both outputs and tells of each piece.

    Attributes:
        out: Standard output until now.
        err: Standard error until now.
    """

    def __init__(self, on_output: OnOutput | None) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self._on_output = on_output

    def take(self, name: str, data: bytes) -> None:
        """Add what came on ``stdout`` or ``stderr``, and tell of it."""
        self.keep(name, data)
        if self._on_output is not None and data:
            self._on_output(name, data)

    def keep(self, name: str, data: bytes) -> None:
        """Add what came, and tell nobody."""
        if name == "stdout":
            self.out += data
        else:
            self.err += data

    def texts(self) -> tuple[str, str]:
        """Both as UTF-8, undecodable bytes replaced."""
        return self.out.decode(errors="replace"), self.err.decode(errors="replace")


class _Arrival(threading.Event):
    """Set when something comes on one of a channel's outputs, or they end.

    The pipe behind a channel's ``fileno()`` is not enough: paramiko clears it when one output
    was read, and may miss that the other one has just got something.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        super().__init__()
        channel.in_buffer.set_event(self)
        channel.in_stderr_buffer.set_event(self)

    def clear(self) -> None:
        """What paramiko does when an output was read; the other may hold something."""

    def await_next(self, seconds: float) -> None:
        """Wait for the next arrival."""
        self.wait(seconds)
        super().clear()


def outputs(channel: paramiko.Channel, deadline: float) -> Iterator[tuple[str, bytes]]:
    """What comes on ``stdout`` and ``stderr``, as it comes, until both are closed.

    Raises:
        TimeoutError: They weren't closed before the deadline, on ``realtime.monotonic``'s clock.
    """
    arrival = _Arrival(channel)
    while True:
        remaining = deadline - realtime.monotonic()
        if remaining <= 0:
            raise TimeoutError
        if not channel.closed:
            arrival.await_next(remaining)
        # Asked first: what came before the end is then there to be read.
        ended = channel.eof_received or channel.closed
        while channel.recv_ready():
            yield "stdout", channel.recv(_CHUNK)
        while channel.recv_stderr_ready():
            yield "stderr", channel.recv_stderr(_CHUNK)
        if ended:
            return


def exit_status(channel: paramiko.Channel, deadline: float) -> int:
    """How the command ended: its status, or 137 where a signal ended it.

    Raises:
        ConnectionLostError: The connection ended before that was known.
        TimeoutError: It didn't end before the deadline, on ``realtime.monotonic``'s clock.
    """
    if not channel.status_event.wait(max(0.0, deadline - realtime.monotonic())):
        raise TimeoutError
    if channel.exit_status < 0:
        # paramiko's mark for "none was sent": the connection ended, or a signal did it.
        if channel.get_transport().is_active():
            return 128 + 9
        raise ConnectionLostError(
            "the SSH connection ended while a command ran",
            remedy="look at the VM's console; the command may have run",
        )
    return channel.exit_status
