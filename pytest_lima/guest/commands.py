"""Running a command in the guest: quoting, output, time limits that really end it."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import CommandError, CommandTimeoutError
from pytest_lima.guest import arguments, sessions, shell
from pytest_lima.guest.arguments import GuestPath
from pytest_lima.guest.output import OnOutput, Output, exit_status
from pytest_lima.guest.startup import BUILTIN, NotBegunError, NotBegunInTimeError

if TYPE_CHECKING:
    import paramiko

    from pytest_lima.guest.ssh import Connection

_PIECE = 256 * 1024
_FOREVER = 1e8


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


@dataclass(frozen=True)
class Order:
    """A command that is to be run; made by ``order``.

    Attributes:
        command: A line for the shell, or an argv.
        script: What the login shell does for it.
        timeout: Seconds.
        data: Its standard input; None: an empty one.
        user: Who runs it; None: the login user.
        on_output: Called with each piece of output.
    """

    command: str | list[str]
    script: str
    timeout: float
    data: bytes | bytearray | memoryview | None
    user: str | None
    on_output: OnOutput | None

    @property
    def shown(self) -> str:
        """The command line, a list joined with shell quoting."""
        return self.command if isinstance(self.command, str) else shlex.join(self.command)


def order(
    command: str | Sequence[str | os.PathLike[str]],
    *,
    timeout: float = 60.0,
    input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
    env: Mapping[str, str] | None = None,
    cwd: GuestPath | None = None,
    user: str | None = None,
    on_output: OnOutput | None = None,
) -> Order:
    """A command with its arguments checked; see ``Instance.run``.

    Raises:
        TypeError: An argument of another type.
        ValueError: One that can't be sent to a guest.
    """
    checked = arguments.command(command)
    return Order(
        checked,
        _script(checked, arguments.env(env), arguments.cwd(cwd)),
        min(arguments.timeout(timeout), _FOREVER),  # infinity is no time that can be waited for
        arguments.input(input),
        arguments.user(user),
        arguments.callback(on_output, "on_output"),
    )


def run(
    connection: Connection,
    command: str | Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    timeout: float = 60.0,
    input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
    env: Mapping[str, str] | None = None,
    cwd: GuestPath | None = None,
    user: str | None = None,
    on_output: OnOutput | None = None,
) -> CommandResult:
    """Run a command in the guest; see ``Instance.run`` and ``run_order``."""
    asked = order(command, timeout=timeout, input=input, env=env, cwd=cwd, user=user,
                  on_output=on_output)  # fmt: skip
    return run_order(connection, asked, check=check)


def run_order(connection: Connection, asked: Order, *, check: bool = True) -> CommandResult:
    """Run a command in the guest and wait for its end.

    Whatever is raised, an interrupt included, its session in the guest has ended then, or the
    error has a note.

    Raises:
        CommandError: ``check`` and a returncode other than 0.
        CommandTimeoutError: It didn't end; its session was killed.
        NotBegunError: Startup files in the guest have kept it from running.
        ConnectionLostError: The connection ended before the command's status was known.
    """
    started = realtime.monotonic()
    deadline = started + asked.timeout
    output = Output(asked.on_output)
    try:
        returncode = _returncode(connection, asked, output, deadline)
    except NotBegunInTimeError as error:
        raise CommandTimeoutError(
            asked.shown, asked.timeout, killed=True, startup=error.said or "no output"
        ) from None
    except TimeoutError as error:
        killed = sessions.STILL_RUNS not in getattr(error, "__notes__", ())
        out, err = output.texts()
        raise CommandTimeoutError(
            asked.shown, asked.timeout, stdout=out, stderr=err, killed=killed
        ) from None
    except NotBegunError as error:
        error.ran = asked.shown
        raise
    result = CommandResult(
        asked.shown, returncode, bytes(output.out), bytes(output.err),
        realtime.monotonic() - started,
    )  # fmt: skip
    if check and not result.ok:
        raise CommandError(result)
    return result


def _script(command: str | list[str], env: Mapping[str, str], cwd: str | None) -> str:
    """What the login shell does."""
    steps = []
    if cwd is not None:
        # A name alone is looked for in CDPATH too, and `-` is the directory before.
        folder = cwd if cwd.startswith("/") else f"./{cwd}"
        steps.append(f"{BUILTIN} cd {shlex.quote(folder)} >/dev/null || {BUILTIN} exit 126")
    steps += [f"{BUILTIN} export {name}={shlex.quote(value)}" for name, value in env.items()]
    # eval keeps a syntax error inside the line, and no further shell has to be started.
    steps.append(
        f"{BUILTIN} eval {shlex.quote(command)}"
        if isinstance(command, str)
        else shlex.join(command)
    )
    return "\n".join(steps)


def _returncode(connection: Connection, asked: Order, output: Output, deadline: float) -> int:
    # Another user's shell and an input to send take far longer than a channel.
    if asked.user is None and asked.data is None and shell.suits(asked.command):
        returncode = shell.run(connection, asked.script, output, deadline)
        if returncode is not None:
            return returncode
    return _run_alone(connection, asked, output, deadline)


def _run_alone(connection: Connection, asked: Order, output: Output, deadline: float) -> int:
    """Run a command on a channel of its own."""
    # The shell stays, so that a command ended by a signal still has a status.
    script = f"{asked.script}\n{BUILTIN} exit $?"
    takes_input = asked.data is not None
    with sessions.begun(
        connection, script, deadline, user=asked.user, takes_input=takes_input
    ) as session:
        if asked.data is not None:
            _feed(session.channel, memoryview(asked.data))
        for name, piece in session.outputs(deadline):
            output.take(name, piece)
        return exit_status(session.channel, deadline)


def _feed(channel: paramiko.Channel, payload: memoryview) -> None:
    """Send standard input from a thread, as the command may print before it reads."""
    channel.settimeout(None)

    def send() -> None:
        try:
            # In pieces: paramiko copies what it hasn't sent yet for each packet.
            for start in range(0, len(payload), _PIECE):
                channel.sendall(bytes(payload[start : start + _PIECE]))
            channel.shutdown_write()
        except (OSError, EOFError):
            pass  # the command ended without reading it all, or its outputs tell of the loss

    threading.Thread(target=send, name="pytest-lima-stdin", daemon=True).start()
