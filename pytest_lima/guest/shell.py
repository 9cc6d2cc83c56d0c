"""Shells that stay: a command costs a fork of one instead of a login shell on a new channel.

Starting the login user's bash is most of what a command costs. So one is started once, on a
channel of its own, and forks for each command, which it reads from its standard input. The
command has the shell's two outputs as its own; when it has ended, the shell writes a mark to
both, which the host has made up for this command alone.

Nothing of a command is left for the next one. It runs in a subshell, and a shell is used again
only if no process of the command's is left in its session or holds its outputs. Otherwise it
ends, and the host reads on until the outputs are closed, as with a channel of the command's own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import ConnectionLostError
from pytest_lima.guest import channels, sessions, startup
from pytest_lima.guest.output import Output, exit_status, outputs
from pytest_lima.guest.ssh import Connection
from pytest_lima.guest.startup import NotBegunError, NotBegunInTimeError, Start

if TYPE_CHECKING:
    import paramiko

# What the shell does. It gets this on its standard input, so that `ps` and `pkill -f` see a short
# command line. Startup files may have functions of these names, which are the command's business;
# the redirections of a `builtin exec` wouldn't last.
#
# A request is a line with its length in bytes and the mark of its end, and then the script.
# Standard error of the shell itself is /dev/null, where bash mourns a subshell that was killed;
# fd 9 is the command's.
#
# Processes that the command leaves have ids between the one that was last before it and the one
# that was last after it (/proc/loadavg ends with that): mostly none, so that the search costs
# nothing. Where a process can't be looked into, it counts as the command's.
_LOOP = r"""
builtin unset pl_loop
command exec 9>&2 2>/dev/null
while IFS=' ' builtin read -r pl_size pl_end &&
  LC_ALL=C IFS= builtin read -r -N "$pl_size" pl_line; do
  IFS=' ' builtin read -r _ _ _ _ pl_pid </proc/loadavg
  (
    builtin eval "builtin unset pl_size pl_end pl_line pl_pid pl_status pl_last pl_left pl_stat \
pl_file
$pl_line"
  ) </dev/null 2>&9 9>&-
  pl_status=$?
  IFS=' ' builtin read -r _ _ _ _ pl_last </proc/loadavg
  pl_left=$((pl_last < pl_pid || pl_last - pl_pid > 500))
  while ((!pl_left && ++pl_pid <= pl_last)); do
    IFS= builtin read -r pl_stat <"/proc/$pl_pid/stat" || builtin continue
    IFS=' ' builtin read -r -a pl_stat <<<"${pl_stat##*) }"
    [[ ${pl_stat[0]} != [ZX] && ${pl_stat[3]} != 0 ]] || builtin continue
    [[ ${pl_stat[3]} != $$ && -r /proc/$pl_pid/fd ]] || pl_left=1
    for pl_file in "/proc/$pl_pid/fd/"*; do
      [[ $pl_file -ef /proc/$$/fd/1 || $pl_file -ef /proc/$$/fd/9 ]] && pl_left=1
    done
  done
  builtin printf '%s %d %d\n' "$pl_end" "$pl_status" "$pl_left"
  builtin printf '%s' "$pl_end" >&9
  ((!pl_left)) || builtin exit 0
done
"""
_BEGIN = f'builtin read -r -N {len(_LOOP)} pl_loop && builtin eval "$pl_loop"'
_OLDEST_BASH = 5
# A shell that takes longer to start isn't waited for; the command gets one of its own.
_START_TIMEOUT = 20.0
_RESULT = re.compile(rb" (\d{1,3}) ([01])\n")
# What means another thing in a subshell, or could in a file that is read into it.
_OWN_PROCESS = re.compile(r"\$\{?\$|\b(SECONDS|BASH_\w+|eval|source)\b|(^|[\s;&|({])\.\s|\0")


def suits(command: str | Sequence[str]) -> bool:
    """Whether a command is the same in a subshell as in a shell that was started for it."""
    return not _OWN_PROCESS.search(command if isinstance(command, str) else f"{command[0]} ")


def run(connection: Connection, script: str, output: Output, deadline: float) -> int | None:
    """Run a script by a shell that stays.

    Args:
        connection: To the guest.
        script: For the login user's shell.
        output: Where what it prints goes.
        deadline: On ``realtime.monotonic``'s clock.

    Returns:
        The exit status; None if there is no such shell in this guest, and nothing was run.

    Raises:
        ConnectionLostError: The connection ended before the status was known.
        NotBegunInTimeError: No shell had started by then.
        TimeoutError: It didn't end in time; its session was killed.
    """
    if not connection.has_shells:
        return None
    with connection.slot(deadline):
        while (shell := _idle(connection) or _start(connection, deadline)) is not None:
            try:
                status = shell.run(script, output, deadline)
            except _GoneError:
                shell.close()
                continue
            except BaseException as error:
                sessions.end_with(connection, shell.pid, error)
                shell.close()
                raise
            if shell.stays:
                connection.idle.append(shell)
            else:
                shell.close()
            return status
    connection.has_shells = False
    return None


def _idle(connection: Connection) -> Shell | None:
    with suppress(IndexError):
        while True:
            shell = connection.idle.pop()
            if shell.is_clean():
                return shell
            shell.close()
    return None


def _start(connection: Connection, deadline: float) -> Shell | None:
    """Start one; None if the login shell is another than bash, or doesn't begin."""
    mark = startup.new_mark()
    channel = connection.open(deadline)
    start = Start(channel, mark)
    shell = None
    try:
        channels.execute(channel, f": pytest-lima; {startup.line(_BEGIN, mark)}", deadline)
        start.begin(min(deadline, realtime.monotonic() + _START_TIMEOUT))
        if start.bash >= _OLDEST_BASH and start.pid is not None:
            _send(channel, _LOOP.encode(), deadline)
            shell = Shell(channel, start.pid)
    except NotBegunError:
        pass  # a command on a channel of its own tells
    except NotBegunInTimeError:
        if realtime.monotonic() >= deadline:
            raise
    finally:
        if shell is None:
            channel.close()
    return shell


class _GoneError(Exception):
    """A shell had ended before it was asked for anything."""


class Shell:
    """One shell in the guest, for one command at a time.

    Attributes:
        pid: In the guest; its session's too.
        stays: Whether it can run another command.
    """

    def __init__(self, channel: paramiko.Channel, pid: int) -> None:
        self._channel = channel
        self.pid = pid
        self.stays = True

    def close(self) -> None:
        """End it."""
        self._channel.close()

    def is_clean(self) -> bool:
        """Whether it still runs, and has nothing to say."""
        channel = self._channel
        ended = channel.closed or channel.eof_received
        return not (ended or channel.recv_ready() or channel.recv_stderr_ready())

    def run(self, script: str, output: Output, deadline: float) -> int:
        """Run a script; see ``run`` of this module."""
        self.stays = False
        mark = secrets.token_hex(8).encode()
        out, err = _Part("stdout", mark, output), _Part("stderr", mark, output)
        coming = outputs(self._channel, deadline)
        try:
            data = script.encode()
            if not _send(self._channel, b"%d %s\n%s" % (len(data), mark, data), deadline):
                raise _GoneError
            for name, data in coming:
                (out if name == "stdout" else err).feed(data)
                if err.ended and b"\n" in out.after:
                    break
            else:
                # It was ended itself, such as by a `kill 0`: so was the command.
                out.flush()
                err.flush()
                return exit_status(self._channel, deadline)
        except BaseException:
            output.keep(out.name, out.held)
            output.keep(err.name, err.held)
            raise
        status, left, out.after = _result(out.after)
        if left:
            for part in (out, err):
                output.take(part.name, part.after)
            for name, data in coming:
                output.take(name, data)
        self.stays = not left
        return status


def _send(channel: paramiko.Channel, data: bytes, deadline: float) -> bool:
    """Send a request; false if the shell ended, which runs no request that isn't whole."""
    try:
        channels.send(channel, data, deadline)
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


def _result(line: bytes) -> tuple[int, bool, bytes]:
    match = _RESULT.match(line)
    if match is None:
        raise ConnectionLostError(
            "the guest's shell doesn't say how the command ended",
            seen=line[:80].decode(errors="replace"),
            remedy="the command has run; see what writes to its shell's outputs",
        )
    return int(match[1]), match[2] == b"1", line[match.end() :]


class _Part:
    """One of the outputs, up to the mark of the command's end and beyond.

    Attributes:
        ended: Whether the mark has come.
        after: What came behind it.
        held: What may be the beginning of it.
    """

    def __init__(self, name: str, mark: bytes, output: Output) -> None:
        self.name = name
        self.ended = False
        self.after = b""
        self._mark = mark
        self._output = output
        self.held = b""

    def feed(self, data: bytes) -> None:
        """Pass on what is surely before the mark."""
        if self.ended:
            self.after += data
            return
        before, mark, after = (self.held + data).partition(self._mark)
        if mark:
            self.ended, self.after, self.held = True, after, b""
        else:
            sizes = range(min(len(self._mark), len(before)), 0, -1)
            size = next((n for n in sizes if before.endswith(self._mark[:n])), 0)
            before, self.held = before[: len(before) - size], before[len(before) - size :]
        self._output.take(self.name, before)

    def flush(self) -> None:
        """Pass on what was held: the mark's beginning doesn't come to be a mark."""
        held, self.held = self.held, b""
        self._output.take(self.name, held)
