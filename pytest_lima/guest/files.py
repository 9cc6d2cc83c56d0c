"""Files to and from the guest: single ones over SFTP, a directory as one tar stream.

The guest is not trusted: what it sends is written only below the destination, only as
regular files and directories, and only up to a limit.
"""

from __future__ import annotations

import io
import shlex
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from pytest_lima.errors import LimaError
from pytest_lima.guest.commands import run
from pytest_lima.guest.ssh import Connection

_TRANSFER_TIMEOUT = 600.0
_SIZE_LIMIT = 4 * 1024**3
_COUNT_LIMIT = 100_000


def put(connection: Connection, local: Path, remote: str) -> None:
    """Copy a file, or a directory's contents, to ``remote``; modes are kept.

    Raises:
        LimaError: ``local`` doesn't exist or the guest refused.
    """
    if local.is_dir():
        _put_tree(connection, local, remote)
        return
    if not local.is_file():
        raise LimaError(f"there is no file {local} to copy", remedy="check the path")
    with _refusals("put", remote), connection.sftp() as sftp:
        sftp.put(str(local), remote)
        sftp.chmod(remote, stat.S_IMODE(local.stat().st_mode))


def get(connection: Connection, remote: str, local: Path) -> None:
    """Copy a file, or a directory's contents, from the guest to ``local``.

    Raises:
        LimaError: It isn't there, can't be read, or is more than 4 GiB or 100,000 files.
    """
    with _refusals("get", remote), connection.sftp() as sftp:
        attributes = sftp.stat(remote)
        is_tree = stat.S_ISDIR(attributes.st_mode or 0)
        if not is_tree:
            if (attributes.st_size or 0) > _SIZE_LIMIT:
                raise LimaError(f"{remote} is larger than 4 GiB", ran=f"get {remote}")
            sftp.get(remote, str(local))
    if is_tree:
        _get_tree(connection, remote, local)


def read_bytes(connection: Connection, remote: str) -> bytes:
    """The contents of a file in the guest.

    Raises:
        LimaError: It isn't there, can't be read, or is more than 4 GiB.
    """
    with _refusals("read", remote), connection.sftp() as sftp:
        if (sftp.stat(remote).st_size or 0) > _SIZE_LIMIT:
            raise LimaError(f"{remote} is larger than 4 GiB", ran=f"read {remote}")
        buffer = io.BytesIO()
        sftp.getfo(remote, buffer)
        return buffer.getvalue()


def write_bytes(connection: Connection, remote: str, data: bytes) -> None:
    """Write a file in the guest, over what was there.

    Raises:
        LimaError: The guest refused.
    """
    with _refusals("write", remote), connection.sftp() as sftp:
        sftp.putfo(io.BytesIO(data), remote, file_size=len(data))


def _put_tree(connection: Connection, local: Path, remote: str) -> None:
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w") as archive:
            archive.add(local, arcname=".", filter=_anonymous)
        spool.seek(0)
        target = shlex.quote(remote)
        run(
            connection,
            f"mkdir -p -- {target} && tar -xf - -C {target}",
            input=spool.read(),
            timeout=_TRANSFER_TIMEOUT,
        )


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _get_tree(connection: Connection, remote: str, local: Path) -> None:
    command = f"exec tar -cf - -C {shlex.quote(remote)} ."
    with connection.session(command, time.monotonic() + _TRANSFER_TIMEOUT) as channel:
        channel.settimeout(_TRANSFER_TIMEOUT)
        local.mkdir(parents=True, exist_ok=True)
        # A channel's file isn't typed as one, but reads as one.
        stream = cast("IO[bytes]", channel.makefile("rb", 256 * 1024))
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            _extract(archive, local)


def _extract(archive: tarfile.TarFile, local: Path) -> None:
    """Write members ourselves: names are checked, links and devices are left out."""
    size = count = 0
    for member in archive:
        size, count = size + member.size, count + 1
        if size > _SIZE_LIMIT or count > _COUNT_LIMIT:
            raise LimaError(f"the guest sends more than 4 GiB or {_COUNT_LIMIT} files")
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or "\0" in member.name:
            raise LimaError("the guest sends a name outside the directory", seen=member.name)
        if not parts:
            continue  # the directory itself
        target = local.joinpath(*parts)
        if target.is_symlink() or not target.parent.resolve().is_relative_to(local.resolve()):
            raise LimaError("a symlink lies in the way of what the guest sends", seen=str(target))
        if member.isdir():
            target.mkdir(exist_ok=True)
        elif member.isfile():
            _write_member(archive, member, target)


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    if source is None:
        return
    with target.open("wb") as file:
        while chunk := source.read(256 * 1024):
            file.write(chunk)
    target.chmod(member.mode & 0o755 | 0o600)


@contextmanager
def _refusals(verb: str, remote: str) -> Iterator[None]:
    """Turn a guest's refusal of a path into an error that names it."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        return
    raise LimaError(
        f"{verb} {remote} in the guest failed",
        seen=problem,
        remedy="check that the path exists and the login user may use it",
    )
