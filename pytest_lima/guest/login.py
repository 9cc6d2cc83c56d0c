"""A login to a guest: made, or being made by a thread while others go on without it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import suppress
from typing import Self

from pytest_lima.errors import ConnectionLostError
from pytest_lima.guest.ssh import Connection, Hold

# Makes a connection within a time of its own, and gives up as soon as its ``Hold`` raises.
Open = Callable[[Hold], Connection]


class Login:
    """One connection, which whoever needs it first waits for."""

    def __init__(self) -> None:
        """Neither begun nor made: see ``begin`` and ``of``."""
        self._made: Future[Connection] = Future()
        self._end_attempt: Callable[[], None] | None = None

    @classmethod
    def begin(cls, open_: Open) -> Self:
        """Have a thread log in."""
        self = cls()
        # A daemon: neither the interpreter's end nor ours waits for a guest that doesn't answer.
        threading.Thread(
            target=self._run, args=(open_,), name="pytest-lima-login", daemon=True
        ).start()
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

    def get(self) -> Connection:
        """The connection, as soon as there is one.

        Raises:
            ConnectionLostError: It was given up, or the guest couldn't be reached.
            LimaError: Whatever else kept it from being made.
        """
        try:
            return self._made.result()  # within the time that the thread has
        except CancelledError:
            raise ConnectionLostError("the login to the guest was given up") from None

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
            raise ConnectionLostError("the login to the guest was given up")
