"""The connection that an instance keeps, made again when it was lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from pytest_lima.errors import LimaError
from pytest_lima.guest.ssh import Connection


class Link:
    """A connection that is made when it is needed and made again when it was lost."""

    def __init__(self, open_: Callable[[], Connection]) -> None:
        self._open = open_
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def get(self) -> Connection:
        """The standing connection, or a new one; before a command, never in the middle."""
        with self._lock:
            if self._connection is None or not self._connection.alive:
                self._connection = self._open()
            return self._connection

    def put(self, connection: Connection) -> None:
        """Use a connection that was made elsewhere."""
        self.close()
        self._connection = connection

    def close(self) -> None:
        """Drop the connection."""
        with self._lock, contextlib.suppress(LimaError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
