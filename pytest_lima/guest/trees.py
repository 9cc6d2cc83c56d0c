"""Directories to and from the guest, each as one tar stream.

The guest is not trusted: what it sends is written only below the destination, only as
regular files and directories, and only up to a limit.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.guest import channels, sessions, transfers
from pytest_lima.guest.output import exit_status
from pytest_lima.guest.sessions import Session
from pytest_lima.guest.ssh import Connection
from pytest_lima.guest.startup import BUILTIN

_COUNT_LIMIT = 100_000
_PIECE = 32 * 1024  # tarfile copies what it holds at each write
# What a member's header may take beside its data; tarfile keeps headers in memory.
_HEADER_LIMIT = 4096
_SAID = 64 * 1024


def put(connection: Connection, local: Path, remote: str) -> None:
    """Copy a directory's contents to ``remote``; modes are kept, owners are not.

    Raises:
        LimaError: The guest refused.
    """
    deadline = realtime.monotonic() + transfers.TIMEOUT
    target = shlex.quote(remote)
    command = f"mkdir -p -- {target} && {BUILTIN} exec tar -xf - -C {target}"
    with (
        transfers.refusals("put", remote),
        sessions.begun(connection, command, deadline, takes_input=True) as session,
    ):
        stream = _Stream(session, deadline)
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
        except _EndedError:
            pass  # its words say why
        problem = stream.refusal()
    if problem:
        raise LimaError(
            f"put {remote} in the guest failed",
            ran=f"tar -xf - -C {target}",
            seen=problem,
            remedy="see who may write there, and what space is left",
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
        stream = _Stream(session, deadline)
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
                _extract(archive, stream, local)
            problem = ""
        except (tarfile.TarError, RecursionError, ValueError) as error:
            problem = str(error)
        problem = stream.refusal() or problem
    if problem:
        raise LimaError(f"get {remote} from the guest failed", ran=command, seen=problem,
                        remedy="what came before that is there; see who may read it")  # fmt: skip


class _EndedError(Exception):
    """The guest's tar ended before it had read everything."""


class _Stream:
    """The guest's tar, as tarfile reads from it or writes to it, until a deadline.

    Attributes:
        budget: Bytes that may still come.
    """

    def __init__(self, session: Session, deadline: float) -> None:
        self.budget = 1024 * 1024
        self._session = session
        self._channel = session.channel
        self._deadline = deadline
        self._broken_off = False

    def write(self, data: bytes) -> None:
        """Send all of ``data``, if that is still wanted."""
        if self._broken_off:
            return
        try:
            channels.send(self._channel, data, self._deadline)
        except TimeoutError:
            raise
        except OSError:
            raise _EndedError from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Send nothing more once anything is raised: tarfile would write what it still holds."""
        try:
            yield
        except BaseException:
            self._broken_off = True
            raise

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        data = self._session.early(size) or channels.receive(self._channel, size, self._deadline)
        self.budget -= len(data)
        if self.budget < 0:
            raise LimaError("the guest sends more than it announces")
        return data

    def refusal(self) -> str | None:
        """Why tar didn't do all; None when it did."""
        status = exit_status(self._channel, self._deadline)
        said = self._session.early(_SAID, "stderr")
        if self._channel.recv_stderr_ready():
            said += self._channel.recv_stderr(_SAID)
        lines = said.decode(errors="replace").splitlines()
        # A log that grows while it is read is no failure; GNU tar returns 1 for it.
        bad = [line for line in lines if not line.endswith("file changed as we read it")]
        if status == 0 or (status == 1 and lines and not bad):
            return None
        return "\n".join(bad[-5:]) or f"tar returned {status}"


def _extract(archive: tarfile.TarFile, stream: _Stream, local: Path) -> None:
    """Write members ourselves: names are checked, links and devices are left out."""
    size = count = 0
    for member in archive:
        announced = max(0, member.size)  # a sparse one can say less than nothing
        size, count = size + announced, count + 1
        if size > transfers.SIZE_LIMIT or count > _COUNT_LIMIT:
            raise LimaError(f"the guest sends more than 4 GiB or {_COUNT_LIMIT} files")
        stream.budget += announced + _HEADER_LIMIT
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or "\0" in member.name:
            raise LimaError("the guest sends a name outside the directory", seen=member.name)
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
        raise LimaError("a symlink lies in the way of what the guest sends", seen=str(target))
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
