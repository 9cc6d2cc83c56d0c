"""Running a command in the guest: quoting, output, time limits that really end it."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

from pytest_lima import realtime
from pytest_lima.errors import CommandError, CommandTimeoutError
from pytest_lima.guest import arguments, sessions, shell
from pytest_lima.guest.arguments import GuestPath
from pytest_lima.guest.output import OnOutput, Output, exit_status
from pytest_lima.guest.startup import BUILTIN, NotBegunError, NotBegunInTimeError
from pytest_lima.results import CommandResult

if TYPE_CHECKING:
    import paramiko

    from pytest_lima.guest.ssh import Connection

TIMEOUT = 60.0
_PIECE = 256 * 1024
_FOREVER = 1e8

Command = str | Sequence[str | os.PathLike[str]]


class Options(TypedDict, total=False):
    """How a command is run; what each means is told at ``Instance.run``."""

    timeout: float
    input: str | bytes | None
    env: Mapping[str, str] | None
    cwd: GuestPath | None
    user: str | None
    on_output: OnOutput | None


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


def order(command: Command, **options: Unpack[Options]) -> Order:
    """A command with its arguments checked; see ``Instance.run``.

    Raises:
        TypeError: An argument of another type.
        ValueError: One that can't be sent to a guest.
    """
    checked = arguments.command(command)
    return Order(
        checked,
        _script(checked, arguments.env(options.get("env")), arguments.cwd(options.get("cwd"))),
        # Infinity is no time that can be waited for.
        min(arguments.timeout(options.get("timeout", TIMEOUT)), _FOREVER),
        arguments.input(options.get("input")),
        arguments.user(options.get("user")),
        arguments.callback(options.get("on_output"), "on_output"),
    )


def run(
    connection: Connection, command: Command, *, check: bool = True, **options: Unpack[Options]
) -> CommandResult:
    """Run a command in the guest; see ``Instance.run`` and ``run_order``."""
    return run_order(connection, order(command, **options), check=check)


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
        returncode = _run_in_shell(connection, asked.script, output, deadline)
        if returncode is not None:
            return returncode
    return _run_alone(connection, asked, output, deadline)


def _run_in_shell(
    connection: Connection, script: str, output: Output, deadline: float
) -> int | None:
    """Run a script by a shell that stays; None if this guest has none, and nothing was run."""
    if not connection.has_shells:
        return None
    with connection.slot(deadline):
        while (one := _shell(connection, deadline)) is not None:
            try:
                status = one.run(script, output, deadline)
            except shell.GoneError:
                one.close()
                continue
            except BaseException as error:
                sessions.end_with(connection, one.pid, error)
                one.close()
                raise
            if one.stays:
                connection.idle.append(one)
            else:
                one.close()
            return status
    connection.has_shells = False
    return None


def _shell(connection: Connection, deadline: float) -> shell.Shell | None:
    with suppress(IndexError):
        while True:
            one = connection.idle.pop()
            if one.is_clean():
                return one
            one.close()
    return shell.start(connection.open(deadline), deadline)


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
