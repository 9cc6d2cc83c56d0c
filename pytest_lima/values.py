"""What the value of an option may look like: parsers that say what is accepted.

Each raises ValueError with words for "give …". And where a relative path in a value starts: it's
made absolute once, as tests change the current directory.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

# Compiled at first use: pytest imports this at every start.
_SIZE = r"(\d+(?:\.\d+)?)\s*(?:(g|gib|gb)|(m|mib|mb))?"
_ON = ("on", "yes", "true", "1")
_OFF = ("off", "no", "false", "0")
_KEY_VALUE = r"(?s)([A-Za-z_]\w*(?:\.\w+|\[\d+\])*)\s*=\s*([^=\s].*)"
_YQ_VALUE = r"(?s)-?\d+(\.\d+)?|true|false|null|\".*\"|\[.*\]|\{.*\}|\..*"
# The options that hold paths.
PATHS = ("template", "mount", "home", "limactl")
_PARAM = r"(?s)[A-Za-z_][A-Za-z0-9_]*=.*"


def gib(text: str) -> float:
    """Parse a size such as ``2``, ``2GiB`` or ``512MiB`` into GiB."""
    match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    value = float(match[1]) / (1024 if match[3] else 1) if match else 0.0
    if not (0 < value < math.inf):
        raise ValueError("a size such as 2, 2GiB or 512MiB")
    return value


def at_least_one(text: str) -> int:
    """Parse a whole number from 1."""
    value = int(text) if text.strip().isdecimal() else 0
    if value < 1:
        raise ValueError("a whole number from 1")
    return value


def positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < math.inf):
        raise ValueError("a number above 0")
    return value


def count(text: str) -> int:
    """Parse a whole number from 0."""
    if not text.strip().isdecimal():
        raise ValueError("a whole number from 0")
    return int(text)


def switch(text: str) -> bool:
    """Parse ``on`` or ``off``, and what else people write for these."""
    value = text.strip().lower()
    if value not in _ON + _OFF:
        raise ValueError("one of " + ", ".join(_ON + _OFF))
    return value in _ON


def not_empty(text: str) -> str:
    """Take any text that says something, without space around it."""
    if not text.strip():
        raise ValueError("a text that is not empty")
    return text.strip()


def pair(text: str) -> str:
    """Take ``KEY=VALUE`` as it is."""
    if not re.fullmatch(_PARAM, text):
        raise ValueError("KEY=VALUE")
    return text


def expression(text: str) -> str:
    """Take a yq expression, or ``KEY=VALUE``, which becomes one."""
    text = not_empty(text)
    match = re.fullmatch(_KEY_VALUE, text)
    if match is None:
        return text
    value = match[2]
    if not re.fullmatch(_YQ_VALUE, value):
        value = json.dumps(re.sub(r"(?s)'(.*)'", r"\1", value))
    return f".{match[1]} = {value}"


def one_of(*choices: str) -> Callable[[str], str]:
    """Make a parser that takes one of ``choices``."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return text

    return parse


def located(option: str, texts: Iterable[str], folder: Path) -> list[str]:
    """Values of one of these options, with relative paths as seen from ``folder``."""
    return [str(folder / text) if _is_relative(option, text) else text for text in texts]


def located_in(option: str, text: str, folders: Iterable[Path | str]) -> str:
    """A relative path in the first of the folders that has it, else in the first."""
    if not _is_relative(option, text):
        return text
    writable = ":w" if option == "mount" and text.endswith(":w") else ""
    named = text.removesuffix(writable)
    paths = [os.path.join(folder, named) for folder in folders]  # noqa: PTH118 - texts
    found = next((path for path in paths if _is_there(option, path)), paths[0])
    return os.path.abspath(found) + writable  # noqa: PTH100 - no symlinks followed


def _is_there(option: str, path: str) -> bool:
    """Whether it exists; of a mount, what stands before its mount point."""
    while not os.path.exists(path):  # noqa: PTH110 - a text
        path, colon, _ = path.rpartition(":")
        if option != "mount" or not colon:
            return False
    return True


def _is_relative(option: str, text: str) -> bool:
    """Whether it's a path from here: no absolute one, no ``template:NAME``, no URL."""
    named = text.strip().removesuffix(":w")
    if not named or named == "-" or os.path.isabs(named):  # noqa: PTH117 - a text
        return False
    if option == "limactl" and "/" not in named:
        return False  # looked for on PATH
    return not named.startswith("~") and (option != "template" or ":" not in named)
