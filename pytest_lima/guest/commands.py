"""Running a command in the guest: quoting, output, time limits that really end it."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import CommandError, CommandTimeoutError, LimaError
from pytest_lima.guest import shell
from pytest_lima.guest.output import SAY_PID, OnOutput, Output, exit_status, outputs

if TYPE_CHECKING:
    import paramiko

    from pytest_lima.guest.ssh import Connection

_PIECE = 256 * 1024
_FOREVER = 1e8
_KILL_TIMEOUT = 10.0
_SESSION_TIMEOUT = 3.0
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

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
    script = _script(command, env or {}, cwd)
    started = realtime.monotonic()
    deadline = started + min(timeout, _FOREVER)  # infinity is no time that can be waited for
    output = Output(on_output)
    returncode = None
    try:
        # Another user's shell and an input to send take far longer than a channel.
        if user is None and input is None and shell.suits(command):
            returncode = shell.run(connection, script, output, deadline)
        if returncode is None:
            returncode = _run_alone(connection, _alone(script, user), input, output, deadline)
    except TimeoutError:
        killed = _kill(connection, output.pid) if output.pid else not output.begun
        out, err = output.texts()
        raise CommandTimeoutError(shown, timeout, stdout=out, stderr=err, killed=killed) from None
    result = CommandResult(
        shown, returncode, bytes(output.out), bytes(output.err), realtime.monotonic() - started
    )
    if check and not result.ok:
        raise CommandError(result)
    return result


def _script(command: str | Sequence[str], env: Mapping[str, str], cwd: str | None) -> str:
    """What the login shell does."""
    if not command:
        raise ValueError("an empty command")
    for name in env:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for an environment variable")
    steps = [] if cwd is None else [f"cd -- {shlex.quote(cwd)} || exit 126"]
    steps += [f"export {name}={shlex.quote(str(value))}" for name, value in env.items()]
    # eval keeps a syntax error inside the line, and no further shell has to be started.
    steps.append(
        f"eval {shlex.quote(command)}" if isinstance(command, str) else shlex.join(command)
    )
    return "\n".join(steps)


def _alone(script: str, user: str | None) -> str:
    """The line for a login shell of the command's own; it says its pid."""
    # The shell stays, so that a command ended by a signal still has a status.
    line = f"{SAY_PID}\n{script}\nexit $?"
    if user is None:
        return line
    return f'exec sudo -n -H -u {shlex.quote(user)} -- "${{SHELL:-/bin/sh}}" -c {shlex.quote(line)}'


def _run_alone(
    connection: Connection,
    line: str,
    data: str | bytes | None,
    output: Output,
    deadline: float,
) -> int:
    """Run a line on a channel of its own."""
    with connection.session(line, deadline) as channel:
        output.begun = output.is_marked = True
        _feed(channel, data)
        for name, piece in outputs(channel, deadline):
            output.take(name, piece)
        return exit_status(channel, deadline)


def _feed(channel: paramiko.Channel, data: str | bytes | None) -> None:
    """Send standard input from a thread, as the command may print before it reads."""
    if data is None:
        channel.shutdown_write()
        return
    payload = memoryview(data.encode() if isinstance(data, str) else data)

    def send() -> None:
        try:
            # In pieces: paramiko copies what it hasn't sent yet for each packet.
            for start in range(0, len(payload), _PIECE):
                channel.sendall(bytes(payload[start : start + _PIECE]))
            channel.shutdown_write()
        except (OSError, EOFError):
            pass  # the command ended without reading it all, or its outputs tell of the loss

    threading.Thread(target=send, name="pytest-lima-stdin", daemon=True).start()


def _kill(connection: Connection, pid: int) -> bool:
    """Kill the session of ``pid`` in the guest; whether that was done."""
    script = f"set -- {pid}\n{_KILL_SESSION}"
    # As root where that's allowed: the command may have been another user's.
    line = f"sudo -n sh -c {shlex.quote(script)} 2>/dev/null || sh -c {shlex.quote(script)}"
    try:
        try:
            return _ends(connection, line)
        except TimeoutError:
            # The command may hold the only session that sshd allows a connection.
            with closing(connection.again()) as other:
                return _ends(other, line)
    except (LimaError, TimeoutError):
        return False


def _ends(connection: Connection, line: str) -> bool:
    with connection.side_session(line, realtime.monotonic() + _SESSION_TIMEOUT) as channel:
        # A status of -1 is none: the connection ended.
        return channel.status_event.wait(_KILL_TIMEOUT) and channel.exit_status >= 0
