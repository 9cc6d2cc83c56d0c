"""What the methods of an instance are given, checked before anything is sent.

Each function returns what it was given in one form, and raises a TypeError or a ValueError whose
words begin with the argument's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# As useradd(8) and directories of users have them, and `#1000` for an id.
_USER = re.compile(r"[^\s\0:/-][^\s\0:/]*")

GuestPath = str | os.PathLike[str]


def command(given: object) -> str | list[str]:
    """A line for the shell, or an argv."""
    if isinstance(given, str):
        if not given.strip():
            raise ValueError("an empty command")
        return _text("command", given)
    if isinstance(given, bytes | bytearray | os.PathLike) or not isinstance(given, Sequence):
        raise TypeError(f"command is {_kind(given)}; give a text for the shell, or a list of texts")
    argv = words(given, "command")
    if not argv or not argv[0]:
        raise ValueError("an empty command")
    return argv


def words(given: Sequence[object], name: str) -> list[str]:
    """An argv."""
    return [_word(f"{name}[{number}]", word) for number, word in enumerate(given)]


def timeout(given: object, name: str = "timeout") -> float:
    """Seconds; infinitely many are some."""
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f'{name} is {_kind(given)}; give seconds, or float("inf") for no limit')
    seconds = float(given)
    if not seconds > 0:
        raise ValueError(f"{name} is {given}; give seconds above 0")
    return seconds


def env(given: object) -> dict[str, str]:
    """Environment variables; numbers become texts."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"env is {_kind(given)}; give a mapping from names to texts")
    values = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"env has the name {name!r}, {_kind(name)}; give a text")
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for an environment variable")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        values[name] = str(value) if is_number else _word(f"env[{name!r}]", value)
    return values


def cwd(given: object) -> str | None:
    """A directory of the guest."""
    return None if given is None else path(given, "cwd")


def user(given: object) -> str | None:
    """A user of the guest."""
    if given is None:
        return None
    if not isinstance(given, str):
        raise TypeError(f"user is {_kind(given)}; give a name, or a text such as '#1000' for an id")
    if not _USER.fullmatch(given):
        raise ValueError(f"user is {given!r}, which is no name of a user")
    return _text("user", given)


def data(given: object, name: str) -> bytes | bytearray | memoryview:
    """Bytes."""
    if not isinstance(given, bytes | bytearray | memoryview):
        raise TypeError(f"{name} is {_kind(given)}; give bytes")
    return given


def text(given: object, name: str) -> bytes:
    """A text as UTF-8; it may have any character."""
    if not isinstance(given, str):
        raise TypeError(f"{name} is {_kind(given)}; give a text")
    return _utf8(name, given)


def input(given: object) -> bytes | bytearray | memoryview | None:  # noqa: A001 - as `run` has it
    """Standard input, if there is one."""
    if given is None:
        return None
    if not isinstance(given, str | bytes | bytearray | memoryview):
        raise TypeError(f"input is {_kind(given)}; give a text or bytes")
    return text(given, "input") if isinstance(given, str) else given


def path(given: object, name: str = "remote") -> str:
    """A path in the guest."""
    found = _word(name, given)
    if not found:
        raise ValueError(f"{name} is empty; give a path")
    return found


def local(given: object) -> Path:
    """A path on this host, which may have names that are no UTF-8."""
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise TypeError(f"local is {_kind(given)}; give a path")
    found = os.fspath(given)
    if not found:
        raise ValueError("local is empty; give a path")
    if "\0" in found:
        raise ValueError(f"local is {found!r}; no path holds a NUL")
    return Path(found)


def callback(given: Any, name: str) -> Any:
    """Something to be called, or nothing."""
    if given is not None and not callable(given):
        raise TypeError(f"{name} is {_kind(given)}; give something that can be called")
    return given


def _word(name: str, given: object) -> str:
    """A text, or a path as one."""
    found = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(found, str):
        raise TypeError(f"{name} is {_kind(given)}; give a text or a path")
    return _text(name, found)


def _text(name: str, given: str) -> str:
    """A text that a command line, a variable or a path can hold."""
    if "\0" in given:
        raise ValueError(
            f"{name} is {_shown(given)}, with a NUL, which can't be passed to a program"
        )
    _utf8(name, given)
    return given


def _utf8(name: str, given: str) -> bytes:
    try:
        return given.encode()
    except UnicodeEncodeError as error:
        lone = given[error.start]
        raise ValueError(
            f"{name} has {lone!r} at {error.start}, half of a character, which is no UTF-8"
        ) from None


def _shown(given: str) -> str:
    whole = repr(given)
    return whole if len(whole) <= 80 else whole[:80] + "…"


def _kind(given: object) -> str:
    return "None" if given is None else f"of type {type(given).__name__}"
