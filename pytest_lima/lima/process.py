"""Child processes: the one owner of ``subprocess``.

Every child gets a session of its own, so a Ctrl-C in the terminal reaches pytest alone and
a whole tree can be ended at once; and it begins with the defaults of all signals, whatever this
process ignores. Output goes to files, never to pipes: a background grandchild that inherits a
pipe would keep the call waiting after the child has ended.

A child that has ended keeps its number until it is collected, and so does its process group. So
none is collected before the last signal to it was sent, and each is as soon as it ends: by whoever
waits for it, or by a thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_lima import realtime
from pytest_lima.lima import identity
from pytest_lima.lima.launch import launch, raise_failure, read_status
from pytest_lima.lima.waits import ends_within, readable

_OUTPUT_LIMIT = 4 * 1024 * 1024
_TERM_GRACE = 3.0
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


class _Process:
    """One child, from its start until it is collected or left to itself."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: int | IO[bytes],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> None:
        """Start it.

        Raises:
            OSError: It could not be started.
        """
        begin = launch(argv, env)
        self._status = begin.status
        self._lock = threading.Lock()  # held from a look at it to what is done about it
        self._is_left = False
        # Known before it is started: a Ctrl-C may come as soon as it runs.
        self.popen = subprocess.Popen.__new__(subprocess.Popen)
        try:
            with _closed_at_end(begin.failure):
                with _closed_at_end(*begin.passed):
                    subprocess.Popen.__init__(
                        self.popen,
                        list(begin.argv),
                        env=dict(env),
                        cwd=_directory(),
                        stdin=stdin,
                        stdout=stdout,
                        stderr=stderr,
                        start_new_session=True,
                        pass_fds=begin.passed,
                    )
                if begin.failure is not None:
                    raise_failure(begin.failure, argv[0])
        except BaseException:
            if getattr(self.popen, "pid", None) is not None:
                self.end()
            raise

    def poll(self) -> int | None:
        """Its exit status, and then it is collected; None while it runs."""
        with self._lock:
            return self._collect()

    def wait(self, timeout: float) -> int | None:
        """Wait at most ``timeout`` seconds for its exit status; None when it still runs."""
        return self.poll() if self._ends_within(timeout) else None

    def end(self) -> None:
        """SIGTERM for its process group, a moment, then SIGKILL for whoever of it is left."""
        with self._lock:
            if self._collect() is not None:
                return  # its number may be another process group's by now
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._is_collectable():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(self.popen.pid, number)
                self._ends_within(_TERM_GRACE)
            self._collect()
        if self.popen.returncode is None:  # not even that has ended it
            self.leave()
            self.collect_at_end()

    def leave(self) -> None:
        """Keep Python from complaining, at our end, that it still runs."""
        with self._lock:
            if self._collect() is None:
                self.popen.returncode = 0
                self._is_left = True
                if self._status is not None:
                    os.close(self._status)
                    self._status = None

    def collect_at_end(self) -> None:
        """Have a thread collect it as soon as it ends, so that no zombie is left of it."""
        threading.Thread(target=self._await_end, name="pytest-lima-child", daemon=True).start()

    def _await_end(self) -> None:
        ends_within(self.popen.pid, math.inf)
        with self._lock:
            if not self._is_left:
                self._collect()
                return
            with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored
                os.waitpid(self.popen.pid, 0)

    def _collect(self) -> int | None:
        if self.popen.poll() is not None and self._status is not None:
            self.popen.returncode = read_status(self._status)
            self._status = None
        return self.popen.returncode

    def _ends_within(self, seconds: float) -> bool:
        """Whether it ends in time; it isn't collected by this."""
        return self.popen.returncode is not None or ends_within(self.popen.pid, seconds)

    def _is_collectable(self) -> bool:
        """Whether its number is still its own: not where SIGCHLD is ignored and it has ended."""
        return self._status is None or identity.of(self.popen.pid) is not None


class Child:
    """A child process that runs on while we do other things."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: IO[bytes]) -> None:
        """Start ``argv`` with both outputs appended to ``log``."""
        self.argv = tuple(argv)
        self._process = _Process(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._process.collect_at_end()

    @property
    def pid(self) -> int:
        """The process id, which is the process group's too."""
        return self._process.popen.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait at most ``timeout`` seconds; None when it still runs."""
        return self._process.wait(timeout)

    def stop(self) -> None:
        """End the child and its process group, with SIGKILL where SIGTERM isn't heard."""
        self._process.end()

    def leave(self) -> None:
        """Let it run on after us; it isn't ours to wait for any more."""
        self._process.leave()


class Companion:
    """A child that outlives us on purpose, and learns of our end by the end of its input.

    Several threads may use it at once.

    Attributes:
        argv: What was started.
        heard: What it has said so far.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Start ``argv`` with a pipe each way; both outputs come to us until it closes them."""
        self.argv = tuple(argv)
        self.heard = b""
        self._lock = threading.Lock()
        self._released = False
        # A bare descriptor, which nothing but our end or `release` closes.
        theirs, self._lifeline = os.pipe()
        try:
            self._process = _Process(
                argv, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
        self._popen = self._process.popen
        self._process.collect_at_end()

    def says(self, expected: bytes, timeout: float) -> bool:
        """Whether it has said ``expected``, waiting at most ``timeout`` seconds for it."""
        deadline = realtime.monotonic() + timeout
        with self._lock:
            output = self._popen.stdout
            while expected not in self.heard:
                if output is None or output.closed:
                    return False
                remaining = max(0.0, deadline - realtime.monotonic())
                heard = readable(output.fileno(), remaining)
                data = os.read(output.fileno(), 65536) if heard else b""
                if not data:
                    return False
                self.heard += data
            if output is not None and not output.closed:
                output.close()
                self._process.leave()
            return True

    def release(self) -> None:
        """Tell it that we need it no more, and hear no more of it."""
        with self._lock:
            if self._released:
                return
            self._released = True
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, GOODBYE)
            os.close(self._lifeline)
            if self._popen.stdout is not None:
                self._popen.stdout.close()
            self._process.leave()

    def stop(self) -> None:
        """End it."""
        self._process.end()
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
        child = _Process(argv, env=env, stdin=read, stdout=out, stderr=err)
        try:
            returncode = child.wait(timeout)
        finally:
            # On Ctrl-C too: half a limactl must not run on behind our back.
            child.end()
        return Completed(tuple(argv), returncode, _read(out), _read(err))


@contextlib.contextmanager
def _closed_at_end(*descriptors: int | None) -> Iterator[None]:
    try:
        yield
    finally:
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)


def _directory() -> str | None:
    """Where a child begins: where we are, unless a test has removed that."""
    try:
        Path.cwd()
    except OSError:
        return "/"
    return None


def _read(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _OUTPUT_LIMIT))
    return file.read().decode(errors="replace")
