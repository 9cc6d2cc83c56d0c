"""Child processes: the one owner of ``subprocess``.

Every child gets a session of its own, so a Ctrl-C in the terminal reaches pytest alone and
a whole tree can be ended at once. Output goes to files, never to pipes: a background
grandchild that inherits a pipe would keep the call waiting after the child has ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_lima import realtime

_OUTPUT_LIMIT = 4 * 1024 * 1024
_TERM_GRACE = 3.0
_LOOK = 0.02
_LONGEST_POLL = 2**31 - 1  # milliseconds; poll(2) takes an int
GOODBYE = b"bye"


@dataclass(frozen=True)
class Completed:
    """A child that has ended.

    Attributes:
        argv: What was run.
        returncode: Its exit status; negative for a signal, None when it was ended by us
            because ``timeout`` had passed.
        stdout: The last 4 MiB of standard output, undecodable bytes replaced.
        stderr: The same for standard error.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it returned 0."""
        return self.returncode == 0


class Child:
    """A child process that runs on while we do other things."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: IO[bytes]) -> None:
        """Start ``argv`` with both outputs appended to ``log``."""
        self.argv = tuple(argv)
        self._popen = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=_directory(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id, which is the process group's too."""
        return self._popen.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait at most ``timeout`` seconds; None when it still runs."""
        return _await(self._popen, timeout)

    def stop(self) -> None:
        """End the child and its process group, with SIGKILL where SIGTERM isn't heard."""
        _end(self._popen)

    def leave(self) -> None:
        """Let it run on after us; it isn't ours to wait for any more."""
        _leave(self._popen)


class Companion:
    """A child that outlives us on purpose, and learns of our end by the end of its input.

    Attributes:
        argv: What was started.
        heard: What it has said so far.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Start ``argv`` with a pipe each way; both outputs come to us until it closes them."""
        self.argv = tuple(argv)
        self.heard = b""
        # A bare descriptor, which nothing but our end or `release` closes.
        theirs, self._lifeline = os.pipe()
        try:
            self._popen = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd="/",
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)

    def says(self, expected: bytes, timeout: float) -> bool:
        """Whether it has said ``expected``, waiting at most ``timeout`` seconds for it."""
        deadline = realtime.monotonic() + timeout
        output = self._popen.stdout
        while expected not in self.heard:
            if output is None or output.closed:
                return False
            remaining = max(0.0, deadline - realtime.monotonic())
            readable, _, _ = select.select([output], [], [], remaining)
            data = os.read(output.fileno(), 65536) if readable else b""
            if not data:
                return False
            self.heard += data
        if output is not None and not output.closed:
            output.close()
            _leave(self._popen)
        return True

    def release(self) -> None:
        """Tell it that we need it no more, and hear no more of it."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, GOODBYE)
        os.close(self._lifeline)
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        _leave(self._popen)

    def stop(self) -> None:
        """End it."""
        _end(self._popen)
        self.release()


def run(
    argv: Sequence[str], *, env: Mapping[str, str], timeout: float, given: bytes = b""
) -> Completed:
    """Run ``argv`` to its end or for ``timeout`` seconds, then end its process group.

    Args:
        argv: The program and its arguments.
        env: Its whole environment.
        timeout: Seconds until it is ended.
        given: What it reads from its standard input.

    Raises:
        OSError: It could not be started.
    """
    with (
        tempfile.TemporaryFile() as read,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        read.write(given)
        read.seek(0)
        popen = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=_directory(),
            stdin=read,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            returncode = _await(popen, timeout)
        finally:
            # On Ctrl-C too: half a limactl must not run on behind our back.
            _end(popen)
        return Completed(tuple(argv), returncode, _read(out), _read(err))


def _await(popen: subprocess.Popen[bytes], timeout: float) -> int | None:
    """Wait at most ``timeout`` seconds for a child's end; None when it still runs.

    Not by its own ``wait``: that looks every 50 ms, half of what a quick limactl takes, and its
    deadline is on a clock that a test may have stopped.
    """
    deadline = realtime.monotonic() + timeout
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # an old kernel, or no descriptor is free
            handle = os.pidfd_open(popen.pid)
            try:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(min(timeout * 1000, _LONGEST_POLL))
            finally:
                os.close(handle)
    while (returncode := popen.poll()) is None and realtime.monotonic() < deadline:
        realtime.sleep(_LOOK)
    return returncode


def _end(popen: subprocess.Popen[bytes]) -> None:
    """SIGTERM for the process group, a moment, then SIGKILL for whoever of it is left."""
    if popen.poll() is not None:
        return  # it has been waited for: its id may be another process group's by now
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, number)
        _await(popen, _TERM_GRACE)


def _directory() -> str | None:
    """Where a child begins: where we are, unless a test has removed that."""
    try:
        Path.cwd()
    except OSError:
        return "/"
    return None


def _leave(popen: subprocess.Popen[bytes]) -> None:
    """Keep Python from complaining, at our end, that the child still runs."""
    if popen.poll() is None:
        popen.returncode = 0


def _read(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _OUTPUT_LIMIT))
    return file.read().decode(errors="replace")
