"""A file in the guest that is another user's, or has a mode from its first moment.

SFTP writes as the login user, and opens a file before it can say which mode that is to have. So
such a file is written by a shell of the user that it is to belong to.
"""

from __future__ import annotations

import secrets
import shlex
from typing import IO

from pytest_lima import realtime
from pytest_lima.guest import sessions, transfers
from pytest_lima.guest.ssh import Connection
from pytest_lima.guest.startup import BUILTIN
from pytest_lima.guest.streams import EndedError, Stream

_PIECE = 256 * 1024

# Its arguments: a path, how many bytes come, a name of nobody's, a mode or nothing.
# A new file takes the old one's place where its owner or its mode has to be another. Else the old
# one is written to, which is all that files below /proc and /sys, and devices, allow.
_WRITE = r"""
path=$1 size=$2 new=$3 mode=$4
refuse() { echo "$1" >&2; exit 1; }
[ ! -d "$path" ] || refuse "it is a directory; expected the path of a file"
target=$(readlink -f -- "$path" && echo .) && target=${target%??} || target=$path
folder=${target%/*}/
ls -d -- "$folder." >/dev/null || exit 1
if [ -e "$target" ] && [ ! -f "$target" ]; then
  [ -c "$target" ] || [ -b "$target" ] || refuse "it is neither a file nor a device"
  mode=
elif [ -z "$mode" ] && [ -e "$target" ] && [ ! -O "$target" ]; then
  mode=$(stat -c %a -- "$target") || exit 1
fi
[ -n "$mode" ] || exec cat >"$target"
new=$folder$new
umask 077
set -C
: >"$new" || exit 1
trap 'rm -f -- "$new"' EXIT
cat >>"$new" || exit 1
came=$(wc -c <"$new")
[ "$came" -eq "$size" ] || refuse "$came of $size bytes came"
chmod "$mode" "$new" && mv -f -- "$new" "$target"
"""


def write(
    connection: Connection,
    source: IO[bytes],
    size: int,
    remote: str,
    *,
    user: str | None,
    mode: int | None,
) -> None:
    """Write a file as its owner.

    Args:
        connection: To the guest.
        source: Where its contents are read from.
        size: How many bytes these are.
        remote: A symlink there leads to the file.
        user: Whose it is, and by whose rights it is written; None: the login user.
        mode: None: that of the file that is there, else as the user's umask has it.

    Raises:
        OSError: The guest refused, or ``source`` can't be read.
        TimeoutError: It took too long.
    """
    deadline = realtime.monotonic() + transfers.TIMEOUT
    with sessions.begun(
        connection, _line(remote, size, mode), deadline,
        user=user, takes_input=True, ends_with_input=True,
    ) as session:  # fmt: skip
        stream = Stream(session, deadline)
        try:
            left = size
            while left and (piece := source.read(min(left, _PIECE))):
                stream.write(piece)
                left -= len(piece)
            session.channel.shutdown_write()
        except EndedError:
            pass  # its words say why
        problem = stream.refusal()
    if problem:
        raise OSError(problem)


def _line(path: str, size: int, mode: int | None) -> str:
    new = f".pytest-lima-{secrets.token_hex(8)}"
    given = [path, str(size), new, "" if mode is None else f"{mode:o}"]
    return f"{BUILTIN} exec {shlex.join(['sh', '-c', _WRITE, 'sh', *given])}"
