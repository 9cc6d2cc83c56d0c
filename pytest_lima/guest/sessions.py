"""A session in the guest for one line, which ends with whoever wanted it.

The one way to have something run in the guest, beside the shells that stay: what startup files do
is kept out of it, and when anything raises, Ctrl-C included, nothing of it is left running.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.guest import channels, startup
from pytest_lima.guest.output import exit_status
from pytest_lima.guest.startup import Start

if TYPE_CHECKING:
    import paramiko

    from pytest_lima.guest.ssh import Connection

# A note to the error of a session that could not be ended.
STILL_RUNS = "what ran in the guest could not be killed and may still run there"

_KILL_TIMEOUT = 10.0
_SESSION_TIMEOUT = 3.0

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
exit 0
"""


@dataclass(frozen=True)
class Session:
    """A line that has begun.

    Attributes:
        channel: Its input, and how it ended.
    """

    channel: paramiko.Channel
    _start: Start

    def outputs(self, deadline: float) -> Iterator[tuple[str, bytes]]:
        """What it prints, as it comes, until both outputs are closed; see ``output.outputs``."""
        return self._start.outputs(deadline)

    def early(self, size: int, name: str = "stdout") -> bytes:
        """What of an output came with the sign, at most ``size`` bytes; none if all was taken.

        For who reads from the channel himself, afterwards.
        """
        return self._start.early(size, name)


@contextmanager
def begun(
    connection: Connection,
    script: str,
    deadline: float,
    *,
    user: str | None = None,
    takes_input: bool = False,
    ends_with_input: bool = False,
) -> Iterator[Session]:
    """Run a script by the login user's shell, or by one of ``user``.

    Args:
        connection: To the guest.
        script: What the shell does.
        deadline: On ``realtime.monotonic``'s clock, for it to begin; waiting for a free session
            counts.
        user: Who runs it, by way of sudo.
        takes_input: Whether it has an input; else that is empty.
        ends_with_input: It ends by itself, and in order, when its input does.

    Raises:
        NotBegunError: Startup files have kept it from running.
        NotBegunInTimeError: It hadn't begun by then.
        ConnectionLostError: The connection is gone.
        TimeoutError: No session came free in time.
    """
    mark = startup.new_mark()
    with connection.slot(deadline), connection.channel(deadline) as channel:
        start = Start(channel, mark)
        try:
            channels.execute(channel, startup.line(script, mark, user=user), deadline)
            start.begin(deadline)
            if not takes_input:
                channel.shutdown_write()
            yield Session(channel, start)
        except BaseException as error:
            # Before it has said who it is, it waits for our answer, and ends without.
            if start.pid is not None and not ends_with_input:
                end_with(connection, start.pid, error)
            raise


def end_with(connection: Connection, pid: int, error: BaseException) -> None:
    """Kill the session of ``pid`` in the guest, as ``error`` has ended its use.

    Raises nothing, as ``error`` is what is to be raised; where the session couldn't be killed,
    that has ``STILL_RUNS`` for a note.
    """
    try:
        ended = _killed(connection, pid)
    except BaseException:  # a second Ctrl-C, for one: it doesn't wait for this
        ended = False
    if not ended:
        error.add_note(STILL_RUNS)


def _killed(connection: Connection, pid: int) -> bool:
    script = f"set -- {pid}\n{_KILL_SESSION}"
    # As root where that's allowed: the command may have been another user's.
    line = f"sudo -n sh -c {shlex.quote(script)} 2>/dev/null || sh -c {shlex.quote(script)}"
    try:
        try:
            return _is_done(connection, line)
        except TimeoutError:
            # The command may hold the only session that sshd allows a connection.
            with closing(connection.again()) as other:
                return _is_done(other, line)
    except (LimaError, TimeoutError):
        return False


def _is_done(connection: Connection, script: str) -> bool:
    """Run a script beside all others; whether it has begun and returned 0."""
    mark = startup.new_mark()
    with connection.channel(realtime.monotonic() + _SESSION_TIMEOUT) as channel:
        deadline = realtime.monotonic() + _KILL_TIMEOUT
        try:
            channels.execute(channel, startup.line(script, mark), deadline)
            Start(channel, mark).begin(deadline)
            return exit_status(channel, deadline) == 0
        except TimeoutError:
            return False
