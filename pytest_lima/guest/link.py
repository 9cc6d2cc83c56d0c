"""The connection that an instance keeps, made again when it was lost."""

from __future__ import annotations

import threading

from pytest_lima.guest.login import Login, Open
from pytest_lima.guest.ssh import Connection


class Link:
    """A connection that is made when it is needed and made again when it was lost."""

    def __init__(self, open_: Open) -> None:
        self._open = open_
        self._login: Login | None = None
        self._lock = threading.Lock()  # held for a look, never for a login

    def get(self) -> Connection:
        """The standing connection, or a new one; before a command, never in the middle.

        Raises:
            LimaError: What kept it from being made; the next one who asks tries anew.
        """
        with self._lock:
            if self._login is None or self._login.lost:
                self._login = Login.begin(self._open)
            login = self._login
        try:
            return login.get()
        finally:
            with self._lock:
                if login.failed and self._login is login:
                    self._login = None

    def put(self, login: Login) -> None:
        """Use one that was begun elsewhere."""
        self._change_to(login)

    def close(self) -> None:
        """Drop the connection, or give up the login that is under way."""
        self._change_to(None)

    def _change_to(self, login: Login | None) -> None:
        with self._lock:
            before, self._login = self._login, login
        if before is not None:
            before.close()
