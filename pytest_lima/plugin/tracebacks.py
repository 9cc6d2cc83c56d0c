"""What of a failure's traceback its reader sees: the user's lines, and nothing of ours.

An error's text is made to explain itself, so the calls below the user's line say nothing to the
one who wrote it. They are taken out of the traceback itself, so that each ``--tb`` style, ``--pdb``
and other plugins' reports go without them. ``--full-trace`` leaves them in, and so does a fault of
ours, as whoever reports it needs them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, takewhile
from types import TracebackType
from typing import Any

import pytest

from pytest_lima.errors import LimaError

# What wrong arguments and the host's files lead to; any other of our own errors is a fault.
_EXPECTED = (LimaError, OSError, ValueError, TypeError)
# Packages whose calls stand between the user's lines and ours, and those below ours.
_PYTEST = ("_pytest", "pytest", "pluggy")
_LIBRARIES = ("paramiko", "cryptography", "tenacity", "h2.connection", "qemu.qmp", "filelock",
              "platformdirs", "psutil", "yaml")  # fmt: skip
_STDLIB = os.__file__.rpartition(os.sep)[0] + os.sep
_INSTALLED = ("site-packages", "dist-packages")


class Tracebacks:
    """A plugin of a run without ``--full-trace``."""

    def __init__(self) -> None:
        self._replaced: Callable[[threading.ExceptHookArgs], object] | None = None

    # Not a wrapper: pytest's part for unittest comes first, and brings the exception.
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """Before a failure is put into words."""
        skipped = call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception)
        if call.excinfo is not None and not skipped:
            _cut_excinfo(call.excinfo)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Before pytest says where it was interrupted."""
        _cut_excinfo(excinfo)

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Before the first VM: pytest puts what ends a thread of the user's into words at once."""
        if self._replaced is None and fixturedef.argname.startswith("lima"):
            self._replaced = threading.excepthook
            threading.excepthook = self._tell_thread

    def pytest_unconfigure(self) -> None:
        """Put back what was there, where nobody has replaced ours meanwhile."""
        if self._replaced is not None and threading.excepthook == self._tell_thread:
            threading.excepthook = self._replaced

    def _tell_thread(self, args: threading.ExceptHookArgs) -> None:
        error = args.exc_value
        if error is not None:
            cut(error)
            kept = (args.exc_type, error, error.__traceback__, args.thread)
            args = threading.ExceptHookArgs(kept)
        (self._replaced or threading.__excepthook__)(args)


def _cut_excinfo(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    cut(excinfo.value)
    # pytest may have read it before; the first entry, which it holds, is never ours.
    excinfo.traceback = type(excinfo.traceback)(excinfo.tb)


def cut(error: BaseException) -> None:
    """Take what isn't the user's out of the traceback of an error, its causes and its parts."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and not _is_fault(current):
        seen.add(id(current))
        current.__traceback__ = _relinked(_shown(_entries(current)))
        if isinstance(current, BaseExceptionGroup):
            for part in current.exceptions:
                cut(part)
        current = _skip_inner_causes(current)


def _skip_inner_causes(error: BaseException) -> BaseException | None:
    """What ``error`` came from; never something that only our own lines have seen."""
    follows = first = _cause(error)
    ours = False
    while follows is not None:
        entries = _entries(follows)
        ours = ours or any(map(_is_ours, entries))
        if not ours or any(map(_is_users, entries)):
            break
        follows = _cause(follows)
    if follows is not first:
        error.__cause__ = None  # and the context is suppressed
        if follows is not None:
            error.__context__, error.__suppress_context__ = follows, False
    return follows


def _cause(error: BaseException) -> BaseException | None:
    """What Python would print before ``error``."""
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _is_fault(error: BaseException) -> bool:
    """Whether it's an error of our lines that nothing from outside can be blamed for."""
    if isinstance(error, (*_EXPECTED, ExceptionGroup)) or not isinstance(error, Exception):
        return False  # Ctrl-C and pytest-timeout's may come anywhere; of a group, the parts count
    raisers = [entry for entry in _entries(error)
               if not (_is_of(entry, *_LIBRARIES) or _is_pythons(entry))]  # fmt: skip
    return bool(raisers) and _is_ours(raisers[-1])


def _shown(entries: Sequence[TracebackType]) -> list[TracebackType]:
    """Without ours, and without what libraries do between them and the user's."""
    shown: list[TracebackType] = []
    for users, run in groupby(entries, _is_users):
        calls = list(run)
        if users or not any(map(_is_ours, calls)):
            shown += calls
        elif not shown:  # pytest's way to a fixture or a hook of ours
            shown += takewhile(lambda entry: not _is_ours(entry), calls)
    return shown


def _relinked(entries: Sequence[TracebackType]) -> TracebackType | None:
    """The entries as a traceback; whoever holds the first sees the new one."""
    for entry, following in zip(entries, [*entries[1:], None], strict=False):
        entry.tb_next = following
    return entries[0] if entries else None


def _entries(error: BaseException) -> list[TracebackType]:
    def follow(entry: TracebackType | None) -> Iterator[TracebackType]:
        while entry is not None:
            yield entry
            entry = entry.tb_next

    return list(follow(error.__traceback__))


def _is_ours(entry: TracebackType) -> bool:
    return _is_of(entry, "pytest_lima")


def _is_users(entry: TracebackType) -> bool:
    return not (_is_of(entry, "pytest_lima", *_PYTEST, *_LIBRARIES) or _is_pythons(entry))


def _is_of(entry: TracebackType, *packages: str) -> bool:
    """Whether a call is of one of them, told by its file: a user's module may have any name."""
    files = (getattr(sys.modules.get(name), "__file__", None) for name in packages)
    folders = tuple(file.rpartition(os.sep)[0] + os.sep for file in files if file)
    return entry.tb_frame.f_code.co_filename.startswith(folders)


def _is_pythons(entry: TracebackType) -> bool:
    path = entry.tb_frame.f_code.co_filename
    installed = any(name in path for name in _INSTALLED)
    return path.startswith("<frozen ") or (path.startswith(_STDLIB) and not installed)
