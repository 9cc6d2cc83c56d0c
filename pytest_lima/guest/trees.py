"""Directories to and from the guest, each as one tar stream.

The guest is not trusted: what it sends is written only below the destination, only as
regular files and directories, and only up to a limit.
"""

from __future__ import annotations

import shlex
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, cast

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.guest import sessions, transfers
from pytest_lima.guest.ssh import Connection
from pytest_lima.guest.startup import BUILTIN
from pytest_lima.guest.streams import EndedError, Stream

_COUNT_LIMIT = 100_000
_PIECE = 32 * 1024  # tarfile copies what it holds at each write
# What a member's header may take beside its data; tarfile keeps headers in memory.
_HEADER_LIMIT = 4096


def put(connection: Connection, local: Path, remote: str, *, user: str | None = None) -> None:
    """Copy a directory's contents to ``remote``; modes are kept, the owner is who writes.

    Args:
        connection: To the guest.
        local: The directory.
        remote: Where its contents go; made if it isn't there.
        user: Who writes, by way of sudo; None: the login user.

    Raises:
        LimaError: The guest refused.
    """
    deadline = realtime.monotonic() + transfers.TIMEOUT
    target = shlex.quote(remote)
    command = f"mkdir -p -- {target} && {BUILTIN} exec tar -xf - -C {target}"
    with (
        transfers.refusals("put", remote, user),
        sessions.begun(connection, command, deadline, user=user, takes_input=True) as session,
    ):
        stream = Stream(session, deadline)
        try:
            file = cast("IO[bytes]", stream)
            with (
                tarfile.open(fileobj=file, mode="w|", bufsize=_PIECE) as archive,
                stream.writing(),
            ):
                # Not the directory itself: what is there keeps its mode.
                for path in sorted(local.resolve().iterdir()):
                    archive.add(path, arcname=f"./{path.name}", filter=_anonymous)
            session.channel.shutdown_write()
        except EndedError:
            pass  # its words say why
        problem = stream.refusal()
    if problem:
        raise LimaError(
            transfers.failed("put", remote, user),
            ran=f"tar -xf - -C {target}",
            seen=problem,
            remedy=transfers.SEE,
        )


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def get(connection: Connection, remote: str, local: Path) -> None:
    """Copy a directory's contents from the guest to ``local``, links and devices left out.

    Raises:
        LimaError: It can't be read, is more than 4 GiB or 100,000 files, or leads elsewhere.
    """
    deadline = realtime.monotonic() + transfers.TIMEOUT
    local.mkdir(parents=True, exist_ok=True)
    command = f"tar -cf - -C {shlex.quote(remote)} ."
    with (
        transfers.refusals("get", remote),
        sessions.begun(connection, f"{BUILTIN} exec {command}", deadline) as session,
    ):
        stream = Stream(session, deadline)
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
                _extract(archive, stream, local)
            problem = ""
        except (tarfile.TarError, RecursionError, ValueError) as error:
            problem = str(error)
        problem = stream.refusal() or problem
    if problem:
        raise LimaError(f"get {remote} from the guest failed", ran=command, seen=problem,
                        remedy="the files copied so far stay; check who may read it")  # fmt: skip


def _extract(archive: tarfile.TarFile, stream: Stream, local: Path) -> None:
    """Write members ourselves: names are checked, links and devices are left out."""
    size = count = 0
    for member in archive:
        announced = max(0, member.size)  # a sparse one can say less than nothing
        size, count = size + announced, count + 1
        if size > transfers.SIZE_LIMIT or count > _COUNT_LIMIT:
            raise LimaError(f"the guest sent more than 4 GiB or {_COUNT_LIMIT} files")
        stream.budget += announced + _HEADER_LIMIT
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or "\0" in member.name:
            raise LimaError("the guest sent a name outside the directory", seen=member.name)
        if not parts or not (member.isdir() or member.isfile()):
            continue  # the directory itself, or what we leave out
        target = local.joinpath(*parts)
        _refuse_what_lies_in_the_way(target, local, is_dir=member.isdir())
        if member.isdir():
            target.mkdir(exist_ok=True)
        else:
            _write_member(archive, member, target)


def _refuse_what_lies_in_the_way(target: Path, local: Path, *, is_dir: bool) -> None:
    if target.is_symlink() or not target.parent.resolve().is_relative_to(local.resolve()):
        raise LimaError("a symlink is in the way of what the guest sent", seen=str(target))
    if not target.parent.is_dir() or (target.exists() and target.is_dir() is not is_dir):
        raise LimaError("a file and a directory have the same name", seen=str(target))


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    if source is None:
        return
    with target.open("wb") as file:
        while chunk := source.read(256 * 1024):
            file.write(chunk)
    target.chmod(member.mode & 0o755 | 0o600)
