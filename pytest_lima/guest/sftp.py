"""The SFTP client of a connection: one, made when it is needed and made again when it was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_lima.errors import LimaError

if TYPE_CHECKING:
    import paramiko

_SHOWN = 4096


class Sftp:
    """A client for one thread at a time."""

    def __init__(self, open_: Callable[[], paramiko.SFTPClient]) -> None:
        self._open = open_
        self._client: paramiko.SFTPClient | None = None
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[paramiko.SFTPClient]:
        """The client, for this thread alone."""
        with self._lock:
            client = self._client = self._client or self._open()
            try:
                yield client
            except OSError as error:
                if isinstance(error, TimeoutError):
                    client.close()  # late answers are nobody's
                raise
            except BaseException:
                client.close()  # an interrupt comes in the middle of an answer too
                raise
            finally:
                used = client.get_channel()
                if used is None or used.closed:
                    self._client = None  # its server may die alone; the next use starts another

    def drop(self) -> None:
        """End its session unless it is in use."""
        if self._lock.acquire(blocking=False):
            try:
                if self._client is not None:
                    self._client.close()
                    self._client = None
            finally:
                self._lock.release()


def no_server(problem: Exception) -> LimaError:
    """What is said where the connection stands and sshd refuses the subsystem."""
    return LimaError(
        "the guest has no SFTP server, over which files go",
        seen=f"{type(problem).__name__}: {problem}",
        remedy="install openssh-sftp-server in it, or use run(…, input=…)",
    )


def not_begun(channel: paramiko.Channel, problem: Exception) -> LimaError:
    """What is said where something else answers than an SFTP server, or nothing does."""
    said = b""
    if channel.recv_ready():
        said += "…".encode() + channel.recv(_SHOWN)  # its first bytes were read as a length
    if channel.recv_stderr_ready():
        said += b"\n" + channel.recv_stderr(_SHOWN)
    return LimaError(
        "the guest's SFTP server, over which files go, did not begin",
        ran="the subsystem sftp, by the login shell",
        seen=said.decode(errors="replace").strip() or f"{type(problem).__name__}: {problem}",
        remedy="see the user's startup files in the guest (~/.bashrc and the like), which may not "
        "print, read or end where there is no terminal, and that the server is installed",
    )
