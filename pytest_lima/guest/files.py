"""Files to and from the guest, over SFTP; directories go as ``trees``."""

from __future__ import annotations

import io
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.guest import transfers, trees
from pytest_lima.guest.ssh import Connection

if TYPE_CHECKING:
    import paramiko

# Of what paramiko writes at once: half of the answers that 32 KiB cost. OpenSSH takes 256.
_REQUEST = 64 * 1024


def require(local: Path) -> None:
    """There has to be something to copy.

    Raises:
        LimaError: There isn't.
    """
    if not local.is_file() and not local.is_dir():
        what = "it is neither a file nor a directory" if local.exists() else None
        raise LimaError(f"there is no file {local} to copy", seen=what, remedy="check the path")


def put(connection: Connection, local: Path, remote: str) -> None:
    """Copy a file, or a directory's contents, to ``remote``; modes are kept.

    Raises:
        LimaError: ``local`` doesn't exist or the guest refused.
    """
    if local.is_dir():
        trees.put(connection, local, remote)
        return
    require(local)
    with transfers.refusals("put", remote), connection.sftp() as sftp, local.open("rb") as source:
        _send(sftp, source, remote)
        sftp.chmod(remote, stat.S_IMODE(local.stat().st_mode))


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


def write_bytes(connection: Connection, remote: str, data: bytes) -> None:
    """Write a file in the guest, over what was there.

    Raises:
        LimaError: The guest refused.
    """
    with transfers.refusals("write", remote), connection.sftp() as sftp:
        _send(sftp, io.BytesIO(data), remote)


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
