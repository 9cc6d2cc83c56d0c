"""The files and processes of this host as they are, whatever a test makes of ``open`` and ``os``.

A test may replace ``open``, functions of ``os`` and methods of ``Path``, or put a file system of
its own in their place (pyfakefs). What is asked while it runs, whether a VM's process lives or
what its console says, is asked with the functions that were there before: pytest imports this
module with the plugin. They are kept in a class, as pyfakefs replaces them wherever a module has
them by name.

What does more with files than these few functions, such as a start, works aside from such a file
system: see ``aside``. Files that a user names are read and written through ``Path``, so they are
those that the test sees.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PIECE = 1024 * 1024


class _System:
    """The functions that were there when pytest began."""

    close = staticmethod(os.close)
    getpid = staticmethod(os.getpid)
    kill = staticmethod(os.kill)
    lseek = staticmethod(os.lseek)
    open = staticmethod(os.open)
    read = staticmethod(os.read)
    readlink = staticmethod(os.readlink)
    stat = staticmethod(os.stat)


def read_bytes(path: Path, *, since: int = 0, most: int = sys.maxsize) -> bytes:
    """What a file has from byte ``since`` on, ``most`` bytes of it.

    Raises:
        OSError: It can't be read.
    """
    descriptor = _System.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if since > 0:
            _System.lseek(descriptor, since, os.SEEK_SET)
        pieces = []
        while most > 0 and (piece := _System.read(descriptor, min(_PIECE, most))):
            pieces.append(piece)
            most -= len(piece)
        return b"".join(pieces)
    finally:
        _System.close(descriptor)


def read_text(path: Path) -> str:
    """A file's UTF-8 text, undecodable bytes replaced.

    Raises:
        OSError: It can't be read.
    """
    return read_bytes(path).decode(errors="replace")


def link_target(path: Path) -> str:
    """Where a symbolic link leads.

    Raises:
        OSError: There is none.
    """
    return _System.readlink(path)


def size(path: Path) -> int | None:
    """A file's bytes; None where there is none."""
    try:
        return _System.stat(path).st_size
    except OSError:
        return None


def pid() -> int:
    """This process's id."""
    return _System.getpid()


def kill(pid: int, signal: int) -> None:
    """Send a signal.

    Raises:
        ProcessLookupError: There is no such process.
        PermissionError: It isn't ours.
    """
    _System.kill(pid, signal)


@contextmanager
def aside() -> Iterator[None]:
    """Have a file system that a test has put in place of the real one (pyfakefs) stand aside.

    It does for the whole process. What starts and ends VMs, and libraries below, use more of
    ``os`` than could be kept here.
    """
    module = sys.modules.get("pyfakefs.fake_filesystem_unittest")
    patcher = getattr(module, "Patcher", None)
    fake = getattr(patcher, "PATCHER", None)
    if fake is None or not fake.is_patching:
        yield
        return
    fake.pause()
    try:
        yield
    finally:
        fake.resume()
