"""A running guest's file system held still, whole on its disk, while the host takes that.

Writes to a frozen file system wait, and it is on the disk as after a clean unmount (fsfreeze(8)).
So nothing here may write to it meanwhile: the shell at the guest's end only waits for a line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_lima import realtime
from pytest_lima.errors import InstanceDiedError, LimaError
from pytest_lima.guest import channels, sessions
from pytest_lima.guest.sessions import Session
from pytest_lima.guest.ssh import Connection
from pytest_lima.guest.startup import BUILTIN

# Seconds after which the guest ends it by itself, whatever has become of us.
LONGEST = 20
# Until the guest has written out what it holds in memory.
_FREEZE_TIMEOUT = 120.0
_THAW_TIMEOUT = LONGEST + 40.0
_CHUNK = 4096
_ASIDE = "/run/pytest-lima/frozen"

# Who comes second finds nothing to thaw and nothing aside.
_BACK = f"""\
fsfreeze -u /
thawed=$?
[ ! -e {_ASIDE}/etc ] || cat {_ASIDE}/etc >/etc/machine-id
[ ! -e {_ASIDE}/dbus ] || cat {_ASIDE}/dbus >/var/lib/dbus/machine-id
rm -rf {_ASIDE}
"""
# systemd makes a new id at the next boot where the file is empty (machine-id(5)), unless D-Bus
# still has the old one in a file of its own. The guard is in a session of its own, which ends
# neither with the connection nor with this shell. True is not `:`, with which a shell would end
# if it can't write. Where nobody reads any more what it says, it thaws all the same.
_HOLD = f"""\
trap '' PIPE
umask 022
mkdir -p {_ASIDE}
if [ -d /run/systemd/system ] && [ -s /etc/machine-id ]; then
  cat /etc/machine-id >{_ASIDE}/etc
  [ -L /var/lib/dbus/machine-id ] || [ ! -e /var/lib/dbus/machine-id ] ||
    cat /var/lib/dbus/machine-id >{_ASIDE}/dbus
fi
sync
setsid sh -c {shlex.quote(f"sleep {LONGEST}{chr(10)}{_BACK}")} </dev/null >/dev/null 2>&1 &
guard=$!
hold() {{
  setsid true || return  # then there is no guard
  [ ! -e {_ASIDE}/etc ] || true >/etc/machine-id || return
  [ ! -e {_ASIDE}/dbus ] || rm /var/lib/dbus/machine-id || return
  fsfreeze -f /
}}
if problem=$(hold 2>&1); then
  echo frozen
  read -r line
else
  echo "not frozen: $problem"
fi
{{ {_BACK}}} 2>/dev/null
kill -KILL "-$guard" 2>/dev/null
echo "thawed=$thawed"
"""
_SAID = re.compile(r"(?:not )?frozen.*\n")


class NotFrozenError(LimaError):
    """The guest's root file system can't be frozen, this time or any other."""


@contextmanager
def frozen(connection: Connection) -> Iterator[None]:
    """Have the root file system frozen inside, with no machine id on it; others are synced.

    Whatever becomes of us, the guest goes on and has its id back, after ``LONGEST`` seconds at
    the latest.

    Raises:
        NotFrozenError: It can't be, as on an overlay or without fsfreeze.
        LimaError: It was not frozen to the end, so what was taken is not to be used.
        InstanceDiedError: It may be frozen still.
        ConnectionLostError: The connection broke before.
    """
    deadline = realtime.monotonic() + _FREEZE_TIMEOUT
    script = f"{BUILTIN} exec sudo -n sh -c {shlex.quote(_HOLD)}"
    with sessions.begun(
        connection, script, deadline, takes_input=True, ends_with_input=True
    ) as session:
        said = _read(session, deadline, _SAID).strip()
        if said.startswith("not frozen: "):
            raise NotFrozenError("the guest's root file system can't be frozen",
                                 ran="fsfreeze -f /", seen=said)  # fmt: skip
        if said != "frozen":
            raise LimaError("the guest's root file system was not frozen",
                            ran="fsfreeze -f /", seen=said or "no answer")  # fmt: skip
        try:
            yield
        except Exception:  # an interrupt waits for nothing: the end of its input thaws it too
            _thaw(session)
            raise
        answer = _thaw(session)
    if answer != "thawed=0":
        raise LimaError("the guest's root file system did not stay frozen",
                        ran="fsfreeze -u /", seen=answer)  # fmt: skip


def _thaw(session: Session) -> str:
    try:
        deadline = realtime.monotonic() + _THAW_TIMEOUT
        channels.send(session.channel, b"\n", deadline)
        answer = _read(session, deadline).strip()
    except OSError as error:
        answer, problem = "", str(error) or type(error).__name__
    else:
        problem = "no answer"
    if not answer:
        raise InstanceDiedError(
            "the guest's root file system may be frozen still", ran="fsfreeze -u /", seen=problem
        )
    return answer


def _read(session: Session, deadline: float, until: re.Pattern[str] | None = None) -> str:
    """What it says, to its end or to ``until``, or to the deadline."""
    data = session.early(_CHUNK)
    while until is None or not until.search(data.decode(errors="replace")):
        try:
            chunk = channels.receive(session.channel, _CHUNK, deadline)
        except TimeoutError:
            break
        if not chunk:
            break
        data += chunk
    return data.decode(errors="replace")
