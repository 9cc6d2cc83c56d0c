"""Running a command in the guest: quoting, output, time limits that really end it."""

from __future__ import annotations

import re
import select
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_lima.errors import (
    CommandError,
    CommandTimeoutError,
    ConnectionLostError,
    LimaError,
)

if TYPE_CHECKING:
    import paramiko

    from pytest_lima.guest.ssh import Connection

OnOutput = Callable[[str, bytes], None]

_CHUNK = 256 * 1024
_KILL_TIMEOUT = 10.0
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The first line each wrapped shell writes to stderr: its process id, for the kill.
_PID = re.compile(rb"pytest-lima-pid=(\d+)\n")
_SAY_PID = 'echo "pytest-lima-pid=$$" >&2'

# Ends every process in the session of pid $1: sshd and sudo start each command in one of its
# own. Field 4 behind the parenthesised name in /proc/PID/stat is the session.
_KILL_SESSION = """\
session=$1
if read -r line <"/proc/$1/stat"; then set -- ${line##*) }; session=$4; fi 2>/dev/null
for stat in /proc/[0-9]*/stat; do
  { read -r line <"$stat"; } 2>/dev/null || continue
  set -- ${line##*) }
  [ "$4" = "$session" ] || continue
  pid=${stat#/proc/}; kill -KILL "${pid%/stat}" 2>/dev/null
done
"""


@dataclass(frozen=True)
class CommandResult:
    """A finished command.

    Attributes:
        command: The command line as given, a list joined with shell quoting.
        returncode: Exit status; 128 + N when signal N ended it.
        stdout_bytes: Standard output.
        stderr_bytes: Standard error.
        duration: Seconds, measured on the host.
    """

    command: str
    returncode: int
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    duration: float

    @property
    def ok(self) -> bool:
        """Whether it returned 0."""
        return self.returncode == 0

    @property
    def stdout(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as UTF-8, undecodable bytes replaced."""
        return self.stderr_bytes.decode(errors="replace")


def run(
    connection: Connection,
    command: str | Sequence[str],
    *,
    check: bool = True,
    timeout: float = 60.0,
    input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    on_output: OnOutput | None = None,
) -> CommandResult:
    """Run a command in the guest; see ``Instance.run``.

    Raises:
        CommandError: ``check`` and a returncode other than 0.
        CommandTimeoutError: It didn't end; its session was killed.
        ConnectionLostError: The connection ended before the command's status was known.
    """
    shown = command if isinstance(command, str) else shlex.join(command)
    line = _wrap(command, env or {}, cwd, user)
    started = time.monotonic()
    deadline = started + timeout
    streams = _Streams(on_output)
    try:
        with connection.session(line, deadline) as channel:
            _feed(channel, input)
            returncode = _drain(channel, streams, deadline)
    except TimeoutError:
        killed = streams.pid is None or _kill(connection, streams.pid)
        out, err = streams.texts()
        raise CommandTimeoutError(shown, timeout, stdout=out, stderr=err, killed=killed) from None
    result = CommandResult(
        shown, returncode, bytes(streams.out), streams.errors(), time.monotonic() - started
    )
    if check and not result.ok:
        raise CommandError(result)
    return result


def _wrap(
    command: str | Sequence[str], env: Mapping[str, str], cwd: str | None, user: str | None
) -> str:
    """The line for the login shell; it says its pid and runs the command."""
    if not command:
        raise ValueError("an empty command")
    for name in env:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for an environment variable")
    steps = [_SAY_PID]
    if cwd is not None:
        steps.append(f"cd -- {shlex.quote(cwd)} || exit 126")
    steps += [f"export {name}={shlex.quote(str(value))}" for name, value in env.items()]
    # eval keeps a syntax error inside the line, and no further shell has to be started. The
    # shell stays, so that a command ended by a signal still has a status.
    steps.append(
        f"eval {shlex.quote(command)}" if isinstance(command, str) else shlex.join(command)
    )
    line = "\n".join([*steps, "exit $?"])
    if user is None:
        return line
    return f'exec sudo -n -H -u {shlex.quote(user)} -- "${{SHELL:-/bin/sh}}" -c {shlex.quote(line)}'


class _Streams:
    """What a command has printed so far."""

    def __init__(self, on_output: OnOutput | None) -> None:
        self.out = bytearray()
        self._err = bytearray()
        self._on_output = on_output
        self.pid: int | None = None

    def take_out(self, data: bytes) -> None:
        self.out += data
        self._tell("stdout", data)

    def take_err(self, data: bytes) -> None:
        self._err += data
        if self.pid is not None:
            self._tell("stderr", data)
            return
        match = _PID.search(self._err)
        if match:
            self.pid = int(match[1])
            del self._err[match.start() : match.end()]
            if self._err:
                self._tell("stderr", bytes(self._err))

    def errors(self) -> bytes:
        return bytes(self._err)

    def texts(self) -> tuple[str, str]:
        return self.out.decode(errors="replace"), self._err.decode(errors="replace")

    def _tell(self, name: str, data: bytes) -> None:
        if self._on_output is not None and data:
            self._on_output(name, data)


def _feed(channel: paramiko.Channel, data: str | bytes | None) -> None:
    """Send standard input from a thread, as the command may print before it reads."""
    if data is None:
        channel.shutdown_write()
        return
    payload = data.encode() if isinstance(data, str) else data

    def send() -> None:
        try:
            channel.sendall(payload)
            channel.shutdown_write()
        except (OSError, EOFError):
            pass  # the command ended without reading it all, or _drain tells of the lost connection

    threading.Thread(target=send, name="pytest-lima-stdin", daemon=True).start()


def _drain(channel: paramiko.Channel, streams: _Streams, deadline: float) -> int:
    """Read both outputs as they come, until the end and the exit status."""
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        select.select([channel], [], [], remaining)
        while channel.recv_ready():
            streams.take_out(channel.recv(_CHUNK))
        while channel.recv_stderr_ready():
            streams.take_err(channel.recv_stderr(_CHUNK))
        if channel.eof_received or channel.closed:
            if channel.recv_ready() or channel.recv_stderr_ready():
                continue
            return exit_status(channel, deadline)


def exit_status(channel: paramiko.Channel, deadline: float) -> int:
    """Wait for the status of a command whose outputs have ended.

    Raises:
        ConnectionLostError: The connection ended before it.
        TimeoutError: It didn't come by ``deadline``.
    """
    if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
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


def _kill(connection: Connection, pid: int) -> bool:
    """Kill the session of ``pid`` in the guest; whether that was done."""
    script = f"set -- {pid}\n{_KILL_SESSION}"
    # As root where that's allowed: the command may have been another user's.
    line = f"sudo -n sh -c {shlex.quote(script)} 2>/dev/null || sh -c {shlex.quote(script)}"
    try:
        with connection.side_session(line, time.monotonic() + _KILL_TIMEOUT) as channel:
            # A status of -1 is none: the connection ended.
            return channel.status_event.wait(_KILL_TIMEOUT) and channel.exit_status >= 0
    except (LimaError, TimeoutError):
        return False
