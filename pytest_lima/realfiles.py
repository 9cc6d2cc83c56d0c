"""The files and processes of this host as they are, whatever a test makes of ``open`` and ``os``.

A test may replace ``open``, functions of ``os`` and methods of ``Path``, or put a file system of
its own in their place (pyfakefs). What is asked while it runs, whether a VM's process lives or
what its console says, is asked with the functions that were there before: pytest imports this
module with the plugin. They are kept in a class, as pyfakefs replaces them wherever a module has
them by name.

What does more with files than these few functions, such as a start, has what a test has put in
place of others stand aside meanwhile: see ``aside``. Files that a user names are read and written
through ``Path``, so they are those that the test sees.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

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


def _public(owner: object) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if name[0] != "_"}


# What there was of each, by what has it. Constants and variables are the test's to set.
_THERE: tuple[tuple[object, Mapping[str, Any]], ...] = tuple(
    (owner, {name: value for name, value in found.items() if callable(getattr(owner, name))})
    for owner, found in (
        (builtins, {"open": open}),
        *((one, _public(one)) for one in (io, json, os, os.path, shutil, tempfile, PurePath, Path)),
    )
)


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
    """Have what a test has put in place of files and the functions for them stand aside.

    It does for the whole process. What starts and ends VMs, and libraries below, use more of
    ``os`` and ``Path`` than could be kept here.
    """
    with _fake_file_system_aside(), _replacements_aside():
        yield


@contextmanager
def _fake_file_system_aside() -> Iterator[None]:
    """As pyfakefs has one."""
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


@contextmanager
def _replacements_aside() -> Iterator[None]:
    """As ``mock`` and ``monkeypatch`` make them.

    For the main thread alone, which none of them can be undone behind: it runs the tests.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced = [
        (owner, name, vars(owner)[name], value)
        for owner, there in _THERE
        for name, value in there.items()
        if vars(owner).get(name, value) is not value
    ]
    try:
        for owner, name, _, value in replaced:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, found, _ in replaced:
            setattr(owner, name, found)
