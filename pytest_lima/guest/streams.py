"""What carries files over a session: bytes to a program in the guest, and from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_lima.errors import LimaError
from pytest_lima.guest import channels
from pytest_lima.guest.output import exit_status
from pytest_lima.guest.sessions import Session

_SAID = 64 * 1024


class EndedError(Exception):
    """What reads in the guest ended before it had read everything."""


class Stream:
    """Input and output of a program in the guest, such as tar, until a deadline.

    Attributes:
        budget: Bytes that may still come.
    """

    def __init__(self, session: Session, deadline: float) -> None:
        self.budget = 1024 * 1024
        self._session = session
        self._channel = session.channel
        self._deadline = deadline
        self._broken_off = False

    def write(self, data: bytes) -> None:
        """Send all of ``data``, if that is still wanted."""
        if self._broken_off:
            return
        try:
            channels.send(self._channel, data, self._deadline)
        except TimeoutError:
            raise
        except OSError:
            raise EndedError from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Send nothing more once anything is raised: tarfile would write what it still holds."""
        try:
            yield
        except BaseException:
            self._broken_off = True
            raise

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        data = self._session.early(size) or channels.receive(self._channel, size, self._deadline)
        self.budget -= len(data)
        if self.budget < 0:
            raise LimaError("the guest sent more than it announced")
        return data

    def refusal(self) -> str | None:
        """Why it didn't do all; None when it did."""
        status = exit_status(self._channel, self._deadline)
        said = self._session.early(_SAID, "stderr")
        if self._channel.recv_stderr_ready():
            said += self._channel.recv_stderr(_SAID)
        lines = said.decode(errors="replace").splitlines()
        # A log that grows while it is read is no failure; GNU tar returns 1 for it.
        bad = [line for line in lines if not line.endswith("file changed as we read it")]
        if status == 0 or (status == 1 and lines and not bad):
            return None
        return "\n".join(bad[-5:]) or f"it returned {status}"
