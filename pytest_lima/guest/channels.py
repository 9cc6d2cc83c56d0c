"""What goes over a channel, with time limits by the real clock.

paramiko has limits of its own, for which it asks ``time.time``. In a test that has stopped the
time they never pass, so here nothing is waited for inside of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from pytest_lima import realtime

if TYPE_CHECKING:
    import paramiko

T = TypeVar("T")

_LOOK = 0.1
_PIECE = 32 * 1024  # what a packet takes; paramiko copies all that it gets


def send(channel: paramiko.Channel, data: bytes, deadline: float) -> None:
    """Send all of ``data``.

    Args:
        channel: To be sent over, by this thread alone.
        data: Of any length.
        deadline: On ``realtime.monotonic``'s clock.

    Raises:
        TimeoutError: The guest didn't take it in time.
        OSError: The channel is closed.
    """
    rest = memoryview(data)
    while rest:
        _await_window(channel, deadline)
        sent = channel.send(bytes(rest[:_PIECE]))
        if not sent:
            raise OSError("Socket is closed")  # paramiko's words
        rest = rest[sent:]


def receive(channel: paramiko.Channel, size: int, deadline: float) -> bytes:
    """At most ``size`` bytes of what comes; none at its end.

    Raises:
        TimeoutError: Nothing came in time.
    """
    arrival = threading.Event()
    channel.in_buffer.set_event(arrival)
    if not arrival.wait(max(0.0, deadline - realtime.monotonic())):
        raise TimeoutError
    return channel.recv(size)


def await_step(transport: paramiko.Transport, done: threading.Event, seconds: float) -> None:
    """Wait for a step of a login that paramiko takes in a thread of its own.

    Raises:
        OSError: It wasn't done in time, or the connection ended.
        SSHException: It has failed.
    """
    deadline = realtime.monotonic() + seconds
    # Looked at again and again: a connection that another thread ends doesn't set it.
    while transport.is_active() and not done.wait(_LOOK):
        if realtime.monotonic() > deadline:
            raise TimeoutError(f"no answer within {seconds:.0f} s")
    if not transport.is_active():
        raise transport.get_exception() or ConnectionError("it closed the connection")


def execute(channel: paramiko.Channel, line: str, deadline: float) -> None:
    """Have sshd run a line by the login user's shell.

    Raises:
        TimeoutError: It doesn't answer in time; the session is closed.
    """
    asked(channel, lambda: channel.exec_command(line), deadline)


def asked(channel: paramiko.Channel, ask: Callable[[], None], deadline: float) -> paramiko.Channel:
    """A session, once the guest has begun in it what ``ask`` asks for; paramiko waits for good.

    Raises:
        TimeoutError: It doesn't answer in time; the session is closed.
    """
    try:
        within(max(0.0, deadline - realtime.monotonic()), ask, lambda _: None)
    except BaseException:
        channel.close()
        raise
    return channel


def within(seconds: float, make: Callable[[], T], discard: Callable[[T], None]) -> T:
    """What ``make`` returns, if it does in time; a thread waits for it.

    Args:
        seconds: From now.
        make: Waits for the guest, by whatever clock.
        discard: Gets what came too late.

    Raises:
        TimeoutError: It didn't.
    """
    made: Future[T] = Future()

    def run() -> None:
        try:
            result = make()
        except BaseException as error:
            with suppress(InvalidStateError):  # nobody waits any more
                made.set_exception(error)
            return
        try:
            made.set_result(result)
        except InvalidStateError:
            discard(result)

    threading.Thread(target=run, name="pytest-lima-session", daemon=True).start()
    try:
        return made.result(seconds)
    except BaseException:
        if not made.cancel() and made.exception() is None:
            discard(made.result())  # it came just now
        raise


def _await_window(channel: paramiko.Channel, deadline: float) -> None:
    """Until the guest takes something, or the channel is closed."""
    while not channel.send_ready():
        left = deadline - realtime.monotonic()
        if left <= 0:
            raise TimeoutError
        with channel.out_buffer_cv:
            if not channel.out_window_size and not channel.closed:
                channel.out_buffer_cv.wait(left)


def timed(channel: paramiko.Channel, seconds: float) -> paramiko.Channel:
    """A channel in which each piece that is sent or received has ``seconds``."""
    return cast("paramiko.Channel", _TimedChannel(channel, seconds))


class _TimedChannel:
    """What an SFTP client needs of a channel."""

    def __init__(self, channel: paramiko.Channel, seconds: float) -> None:
        self._channel = channel
        self._seconds = seconds

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._channel.closed

    def send(self, data: bytes) -> int:
        """Send all of ``data``; returns its length."""
        send(self._channel, data, realtime.monotonic() + self._seconds)
        return len(data)

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        return receive(self._channel, size, realtime.monotonic() + self._seconds)

    def get_name(self) -> str:
        """paramiko's, for its log."""
        return self._channel.get_name()

    def recv_ready(self) -> bool:
        """Whether something has come."""
        return self._channel.recv_ready()

    def close(self) -> None:
        """End it."""
        self._channel.close()
