"""Files to and from the guest, over SFTP; directories go as ``trees``, others' by ``placing``."""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.guest import placing, transfers, trees
from pytest_lima.guest.ssh import Connection

if TYPE_CHECKING:
    import paramiko

# Of what paramiko writes at once: half of the answers that 32 KiB cost. OpenSSH takes 256.
_REQUEST = 64 * 1024


def require(local: Path, mode: int | None = None) -> None:
    """There has to be something to copy, and a mode is a file's.

    Raises:
        LimaError: There isn't.
        ValueError: A mode for a directory.
    """
    if mode is not None and local.is_dir():
        raise ValueError(
            f"mode is given and {local} is a directory, whose files and directories keep their "
            "own; change them here before, or in the guest with chmod"
        )
    if not local.is_file() and not local.is_dir():
        what = "it is neither a file nor a directory" if local.exists() else None
        raise LimaError(f"there is no file {local} to copy", seen=what, remedy="check the path")


def put(
    connection: Connection,
    local: Path,
    remote: str,
    *,
    user: str | None = None,
    mode: int | None = None,
) -> None:
    """Copy a file, or a directory's contents, to ``remote``; modes are kept.

    Args:
        connection: To the guest.
        local: What is copied.
        remote: Where to.
        user: Who writes it, and whose it is then; None: the login user.
        mode: That of a file, in place of its own.

    Raises:
        LimaError: ``local`` doesn't exist or the guest refused.
        ValueError: A mode for a directory.
    """
    require(local, mode)
    if local.is_dir():
        trees.put(connection, local, remote, user=user)
        return
    with transfers.refusals("put", remote, user), local.open("rb") as source:
        facts = os.fstat(source.fileno())
        own = stat.S_IMODE(facts.st_mode)
        if user is None and mode is None:
            with connection.sftp() as sftp:
                _send(sftp, source, remote)
                sftp.chmod(remote, own)
        else:
            placing.write(connection, source, facts.st_size, remote,
                          user=user, mode=own if mode is None else mode)  # fmt: skip


def get(connection: Connection, remote: str, local: Path) -> None:
    """Copy a file, or a directory's contents, from the guest to ``local``.

    Raises:
        LimaError: It isn't there, can't be read, or is more than 4 GiB or 100,000 files.
    """
    with transfers.refusals("get", remote), connection.sftp() as sftp:
        attributes = sftp.stat(remote)
        is_tree = stat.S_ISDIR(attributes.st_mode or 0)
        if not is_tree:
            if (attributes.st_size or 0) > transfers.SIZE_LIMIT:
                raise LimaError(f"{remote} is larger than 4 GiB", ran=f"get {remote}")
            sftp.get(remote, str(local), callback=_limits("get", remote))
    if is_tree:
        trees.get(connection, remote, local)


def read_bytes(connection: Connection, remote: str) -> bytes:
    """The contents of a file in the guest.

    Raises:
        LimaError: It isn't there, can't be read, or is more than 4 GiB.
    """
    with transfers.refusals("read", remote), connection.sftp() as sftp:
        if (sftp.stat(remote).st_size or 0) > transfers.SIZE_LIMIT:
            raise LimaError(f"{remote} is larger than 4 GiB", ran=f"read {remote}")
        buffer = io.BytesIO()
        sftp.getfo(remote, buffer, callback=_limits("read", remote))
        return buffer.getvalue()


def write_bytes(
    connection: Connection,
    remote: str,
    data: bytes,
    *,
    user: str | None = None,
    mode: int | None = None,
) -> None:
    """Write a file in the guest, over what was there; see ``put`` for ``user`` and ``mode``.

    Raises:
        LimaError: The guest refused.
    """
    source = io.BytesIO(data)
    with transfers.refusals("write", remote, user):
        if user is None and mode is None:
            with connection.sftp() as sftp:
                _send(sftp, source, remote)
        else:
            placing.write(connection, source, len(data), remote, user=user, mode=mode)


def _send(sftp: paramiko.SFTPClient, source: IO[bytes], remote: str) -> None:
    """Write a file without waiting for each answer; its size shows whether all went well."""
    with sftp.open(remote, "wb") as file:
        file.MAX_REQUEST_SIZE = _REQUEST
        file.set_pipelined(True)
        shutil.copyfileobj(source, file, _REQUEST)
    written, sent = sftp.stat(remote).st_size, source.tell()
    if written != sent:
        raise OSError(f"{written} of {sent} bytes were written")


def _limits(verb: str, remote: str) -> Callable[[int, int], None]:
    """Called by SFTP as bytes come: the size that a guest tells may be any."""
    deadline = realtime.monotonic() + transfers.TIMEOUT

    def check(size: int, _: int) -> None:
        if size > transfers.SIZE_LIMIT:
            raise LimaError(f"{remote} is larger than 4 GiB", ran=f"{verb} {remote}")
        if realtime.monotonic() > deadline:
            raise TimeoutError

    return check
