"""A guest that is kept, and one that wakes up from its memory under another name.

Keeping and waking go through one root shell each: sudo and a shell cost a second on an
emulated CPU that has just woken up.
"""

from __future__ import annotations

import math
import secrets
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_lima.errors import ConnectionLostError, StartError
from pytest_lima.guest import clock, commands
from pytest_lima.guest.ssh import Connection

if TYPE_CHECKING:
    import paramiko

_TIMEOUT = 60.0
_CHUNK = 65536
_SESSIONS = "/run/pytest-lima/sessions"
# The token lies in memory and on the disk: the two have to be of the same moment.
_IN_MEMORY = "/run/pytest-lima/token"
_ON_DISK = "/var/lib/pytest-lima/token"

# Connections do not outlive their host's side, so the sessions behind them are noted, to be
# ended at waking up. The listening sshd is a child of process 1; theirs are not.
_KEEP = f"""\
set -eu
umask 077
token=$1
mkdir -p {_IN_MEMORY.rpartition("/")[0]} {_ON_DISK.rpartition("/")[0]}
echo "$token" >{_IN_MEMORY}
echo "$token" >{_ON_DISK}.new
dd if=/dev/null of={_ON_DISK}.new conv=notrunc,fsync 2>/dev/null
mv {_ON_DISK}.new {_ON_DISK}
: >{_SESSIONS}
for folder in /proc/[0-9]*; do
  read -r name <"$folder/comm" || continue
  case $name in sshd*) ;; *) continue ;; esac
  read -r stat <"$folder/stat" || continue
  set -- ${{stat##*) }}
  [ "$2" = 1 ] || echo "${{folder#/proc/}}" >>{_SESSIONS}
done 2>/dev/null
[ "$(dd if={_ON_DISK} bs=4096 count=1 iflag=direct 2>/dev/null)" = "$token" ] ||
  {{ echo "what is on its disk can't be read past its memory" >&2; exit 1; }}
"""

# It asks for the time when it is ready to set it. Writing to /dev/urandom alone changes nothing
# until the kernel's next reseeding; ioctl 0x5207 is RNDRESEEDCRNG (linux/random.h). journald
# goes on in the folder of the old machine id, and journalctl looks into that of the new.
_WAKE = f"""\
echo awake
IFS= read -r now
date -u -s "@$now" >/dev/null 2>&1 || date -u -s "@${{now%.*}}" >/dev/null  # busybox
for pid in $(cat {_SESSIONS}); do kill -KILL "$pid"; done 2>/dev/null
seed='open(F, ">", "/dev/urandom") && syswrite(F, pack("H*", $ARGV[0])) == 32
  && ioctl(F, 0x5207, 0) || exit 1'
other='import fcntl, sys
with open("/dev/urandom", "wb", 0) as f:
  f.write(bytes.fromhex(sys.argv[1]))
  fcntl.ioctl(f, 0x5207)'
perl -e "$seed" "$random" 2>/dev/null || python3 -I -S -c "$other" "$random"
echo "reseeded=$?"
if [ "$host" != "$old" ]; then
  echo "$host" >/etc/hostname
  echo "$host" >/proc/sys/kernel/hostname
  sed "s/$old/$host/g" /etc/hosts >/run/pytest-lima/hosts && cat /run/pytest-lima/hosts >/etc/hosts
  read -r before </etc/machine-id
  for journal in /run/log/journal /var/log/journal; do
    [ ! -d "$journal/$before" ] || ln -s "$before" "$journal/$machine"
  done
  echo "$machine" >/etc/machine-id
fi
if [ -n "$iid" ]; then
  echo "$iid" >/run/lima-ssh-ready
  echo "$iid" >/run/lima-boot-done
fi
echo "memory=$(cat {_IN_MEMORY})"
echo "disk=$(dd if={_ON_DISK} bs=4096 count=1 iflag=direct 2>/dev/null)"
echo "time=$(date -u +%s.%N)"
"""


@dataclass(frozen=True)
class Kept:
    """What is known of a guest whose memory is kept.

    Attributes:
        token: Lies in its memory and on its disk, and nowhere else.
        hostname: Its own.
    """

    token: str
    hostname: str


def keep(connection: Connection, hostname: str) -> Kept:
    """Make a guest ready for its memory and disk to be kept.

    Raises:
        CommandError: The guest can't.
    """
    kept = Kept(secrets.token_hex(16), hostname)
    commands.run(connection, ["sh", "-c", _KEEP, "sh", kept.token], user="root", timeout=_TIMEOUT)
    return kept


def wake(connection: Connection, kept: Kept, hostname: str, iid: str = "") -> None:
    """Make a guest that has just woken up one of its own, and prove that it is the kept one.

    Its clock is set, its random numbers are its own, and so are host name and machine id if
    ``hostname`` isn't the kept one's.

    Args:
        connection: To the guest.
        kept: What it was when it was kept.
        hostname: What it is to be.
        iid: Lima's id of this start, which Lima waits for in the guest; empty for none.

    Raises:
        StartError: It isn't the kept guest, or it can't be made one of its own.
        ReadyTimeoutError: Its clock can't be set.
        ConnectionLostError: The connection broke.
    """
    values = {
        "host": hostname,
        "old": kept.hostname,
        "machine": secrets.token_hex(16),
        "random": secrets.token_hex(32),
        "iid": iid,
    }
    script = "".join(f"{key}={value}\n" for key, value in values.items()) + _WAKE
    said = _converse(connection, f"exec sudo -n sh -c {shlex.quote(script)}")
    facts = dict(line.partition("=")[::2] for line in said.splitlines())
    told = clock.seconds(facts.get("time", ""))
    drift = math.inf if told is None else told - time.time()
    problems = [
        problem
        for wrong, problem in (
            (facts.get("memory") != kept.token, "its memory is not the kept one"),
            (facts.get("disk") != kept.token, "its disk is not the kept one"),
            (facts.get("reseeded") != "0", "its random numbers can't be reseeded"),
        )
        if wrong
    ]
    if problems:
        raise StartError("the guest did not wake up as it should", seen="; ".join(problems))
    if abs(drift) > clock.TOLERANCE:  # on a busy machine that is the way here and back
        clock.correct(connection)


def _converse(connection: Connection, line: str) -> str:
    """Run the script and answer its one question with the time; what it has said after that."""
    deadline = time.monotonic() + _TIMEOUT
    with connection.session(line, deadline) as channel:
        channel.settimeout(_TIMEOUT)
        try:
            first = _read(channel, b"awake\n")
            channel.sendall(f"{time.time():.3f}\n".encode())
            return (first.rpartition(b"awake\n")[2] + _read(channel, None)).decode(errors="replace")
        except OSError as error:
            problem = str(error) or type(error).__name__
    raise ConnectionLostError("the guest did not wake up", ran="sudo -n sh", seen=problem)


def _read(channel: paramiko.Channel, until: bytes | None) -> bytes:
    data = b""
    while until is None or until not in data:
        chunk = channel.recv(_CHUNK)
        if not chunk:
            break
        data += chunk
    return data
