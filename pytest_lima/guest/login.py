"""A login to a guest: made, or being made by a thread while others go on without it."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import suppress
from functools import partial
from typing import Self

from pytest_lima import realthreads, realtime
from pytest_lima.errors import ConnectionLostError
from pytest_lima.guest.ssh import LOGIN_TIMEOUT, Connection, Hold

# Makes a connection within a time of its own, and gives up as soon as its ``Hold`` raises.
Open = Callable[[Hold], Connection]


class LoginTimeoutError(TimeoutError):
    """A login has not come to its end while somebody waited for it; it goes on for others."""


class Login:
    """One connection, which whoever needs it first waits for."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Neither begun nor made: see ``begin`` and ``of``."""
        self._made: Future[Connection] = Future()
        self._seconds = seconds
        self._deadline = realtime.monotonic() + seconds
        self._end_attempt: Callable[[], None] | None = None

    @classmethod
    def begin(cls, open_: Open, seconds: float = LOGIN_TIMEOUT) -> Self:
        """Have a thread log in.

        Args:
            open_: Makes the connection.
            seconds: After these it is given up, whatever ``open_`` still waits for.

        Raises:
            RuntimeError: This host allows no further thread.
        """
        self = cls(seconds)
        realthreads.start(partial(self._run, open_), "pytest-lima-login")
        return self

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """One that was made."""
        self = cls()
        self._made.set_result(connection)
        return self

    @property
    def failed(self) -> bool:
        """Whether it is known that there will be no connection."""
        return self._made.done() and (self._made.cancelled() or self._made.exception() is not None)

    @property
    def lost(self) -> bool:
        """Whether there was a connection, and it has ended."""
        return self._made.done() and not self.failed and not self._made.result().alive

    def get(self, deadline: float = math.inf) -> Connection:
        """The connection, as soon as there is one.

        Args:
            deadline: How long the caller waits, on ``realtime.monotonic``'s clock; never longer
                than until the login is given up.

        Raises:
            LoginTimeoutError: The deadline has passed.
            ConnectionLostError: It was given up, or the guest couldn't be reached.
            LimaError: Whatever else kept it from being made.
        """
        try:
            return self._result(min(deadline, self._deadline) - realtime.monotonic())
        except TimeoutError:
            if self._made.done():
                return self._result()  # just now; or this is what has kept it from being made
            if deadline < self._deadline:
                raise LoginTimeoutError from None
        self.close()
        raise ConnectionLostError(
            f"the login to the guest has not ended within {self._seconds:g} s",
            remedy="see on its console whether it still works, or is too busy to answer",
        )

    def over(self, seconds: float) -> bool:
        """Whether it was made or has failed within a time; one that is given up is neither."""
        return bool(wait([self._made], seconds).done)

    def close(self) -> None:
        """End the connection, or the making of it; never waits for that."""
        if self._made.cancel():
            if self._end_attempt is not None:
                self._end_attempt()
        elif not self.failed:
            self._made.result().close()

    def _result(self, seconds: float = 0.0) -> Connection:
        try:
            return self._made.result(max(0.0, seconds))
        except CancelledError:
            raise ConnectionLostError("the login to the guest was given up") from None

    def _run(self, open_: Open) -> None:
        try:
            connection = open_(self._hold)
        except BaseException as error:
            with suppress(InvalidStateError):  # given up
                self._made.set_exception(error)  # raised where it is needed
            return
        try:
            self._made.set_result(connection)
        except InvalidStateError:
            connection.close()

    def _hold(self, end: Callable[[], None]) -> None:
        """Remember what ends the attempt that begins; raises where nobody wants it any more."""
        self._end_attempt = end
        if self._made.cancelled():
            raise ConnectionLostError("the login to the guest was cancelled")
