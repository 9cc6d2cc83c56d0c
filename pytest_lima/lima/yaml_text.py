"""Writing YAML of which every reader makes the same, Lima's among them.

Texts are in quotes, or a block where that is more readable and means the same; only what
`lima_yaml` has read as what may be a number is written as it was.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.lima.lima_yaml import Plain

# What is no plain scalar any more at its new place: it stood in a flow, or over several lines.
_NOT_PLAIN = re.compile(r":\s|:$|\s#|^\s|\s$|[\n\r\x85\u2028\u2029]|^$")
_WORD = re.compile(r"(?!(?i:y|n|yes|no|on|off|true|false|null)$)[A-Za-z_][A-Za-z0-9_-]*")
# limactl's formatter takes no line that is longer than 64 KiB; limactl itself then writes base64.
_LONG = 60_000
_CHUNK = 76


def write(source: str, value: Mapping[str, Any]) -> str:
    """Write a mapping so that every reader of YAML sees the values in it.

    Args:
        source: Where it is from, for messages.
        value: What `read` gives, and plain data of Python.

    Raises:
        TemplateError: It holds what no YAML can.
    """
    try:
        return "".join(f"{line}\n" for line in _mapping_lines(value, ""))
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise TemplateError(
        f"{source} with its overrides can't be written as YAML",
        seen=problem,
        remedy="give texts, numbers, booleans, lists and mappings",
    )


def _mapping_lines(mapping: Mapping[str, Any], pad: str) -> Iterator[str]:
    for key, value in mapping.items():
        yield from _entry(f"{pad}{_key(key)}:", value, pad)


def _list_lines(items: Sequence[Any], pad: str) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and item:
            lines = _mapping_lines(item, f"{pad}  ")
            yield f"{pad}- {next(lines).removeprefix(pad + '  ')}"
            yield from lines
        else:
            yield from _entry(f"{pad}-", item, pad)


def _entry(head: str, value: Any, pad: str) -> Iterator[str]:
    """``head`` and a value behind it, or below it."""
    if isinstance(value, Mapping) and value:
        yield head
        yield from _mapping_lines(value, f"{pad}  ")
    elif isinstance(value, list | tuple) and value:
        yield head
        yield from _list_lines(value, f"{pad}  " if head.endswith("-") else pad)
    elif isinstance(value, str) and _is_block(value):
        yield f"{head} |" if value.endswith("\n") else f"{head} |-"
        lines = value.removesuffix("\n").split("\n")
        yield from (f"{pad}  {line}" if line else "" for line in lines)
    elif isinstance(value, bytes) or (isinstance(value, str) and len(value) > _LONG):
        data = value if isinstance(value, bytes) else value.encode()
        encoded = base64.b64encode(data).decode()
        yield f"{head} !!binary |"
        yield from (f"{pad}  {encoded[at : at + _CHUNK]}" for at in range(0, len(encoded), _CHUNK))
    else:
        yield f"{head} {_scalar(value)}"


def _is_block(text: str) -> bool:
    """Whether it is more readable as a block, of which all readers make the same."""
    if "\n" not in text or len(text) > _LONG or text.endswith("\n\n"):
        return False
    lines = text.removesuffix("\n").split("\n")
    plain = all(line.replace("\t", "").isprintable() and line == line.rstrip() for line in lines)
    # limactl's formatter spoils blocks with characters of four bytes.
    return plain and max(text) <= "\uffff" and lines[0] != "" and not lines[0][0].isspace()


def _key(key: object) -> str:
    plain = isinstance(key, str) and not isinstance(key, Plain) and _WORD.fullmatch(key)
    return str(key) if plain else _scalar(key)


def _scalar(value: Any) -> str:
    if isinstance(value, Plain) and not _NOT_PLAIN.search(value):
        return str(value)
    if isinstance(value, str):
        # JSON's quotes are YAML's, but for what JSON writes as two halves, or doesn't escape.
        return "".join(map(_visible, json.dumps(value, ensure_ascii=False)))
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, Mapping | list | tuple) and not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    raise TypeError(f"{value!r} is no plain data")


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        raise ValueError(f"half of a character: {char!r}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
