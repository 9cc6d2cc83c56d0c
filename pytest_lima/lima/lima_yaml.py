"""Reading YAML as Lima reads it; the one owner of yaml.

Two readers of one text must see the same values. Lima's reader is of YAML 1.2 with habits of its
own (``on`` is a text, ``0755`` is 493, ``1_000`` is 1000), PyYAML's is of YAML 1.1. So PyYAML
only takes the text apart here. What is a text for Lima becomes one; what may be a number stays as
it was written, for `yaml_text` to write it like that again.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_lima.errors import TemplateError
from pytest_lima.lima import libraries

if TYPE_CHECKING:
    from yaml import MappingNode, Node, ScalarNode

_SIZE_LIMIT = 1024 * 1024
# Aliases can stand for more than any memory holds.
_NODE_LIMIT = 100_000
_DEPTH_LIMIT = 100
_TOO_DEEP = "it is nested too deep, or in a circle: the limit of recursion was reached"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True,
          "false": False, "False": False, "FALSE": False}  # fmt: skip
_PLAIN = "!plain"
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"0|-?[1-9][0-9]{0,17}")
# What Lima may take for a number, which depends on the field too.
_NUMBER = re.compile(
    r"[-+]?(0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*\.?[0-9_]*([eE][-+]?[0-9]+)?"
    r"|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?)|-?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
# Line breaks in YAML 1.1 and for PyYAML; for Lima characters like others.
_BREAKS = "\x85\u2028\u2029"


class Plain(str):
    """What may be a number, as it was written: what it is, is for Lima to say."""

    __slots__ = ()


def prepare() -> None:
    """Load PyYAML, which another thread must not do at the same time.

    invoke, which paramiko loads where it is installed, begins with the inner half of PyYAML
    (``yaml._yaml``); Python takes two threads that meet there for a deadlock.
    """
    libraries.load(["yaml"])


def read(source: str, text: str) -> Any:
    """Read the first document of ``text``, as Lima does.

    Mappings, lists, texts, whole numbers, booleans, None; `Plain` for other numbers, bytes for
    ``!!binary`` that is no text.

    Args:
        source: Where it is from, for messages.
        text: The YAML.

    Raises:
        TemplateError: It is no YAML, or holds what can't be carried over as Lima reads it.
    """
    import yaml  # loaded on use: a run without a VM doesn't pay for it

    if len(text) > _SIZE_LIMIT:
        raise TemplateError(f"the template {source} is larger than 1 MiB")
    unused = (chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
    stand_ins = dict(zip(_BREAKS, unused, strict=False))
    try:
        node = _compose(text.translate({ord(char): one for char, one in stand_ins.items()}))
        return None if node is None else _Reader(text, stand_ins).value(node, 0)
    except RecursionError:
        problem = _TOO_DEEP
    except (yaml.YAMLError, ValueError) as error:
        problem = str(error)
    raise TemplateError(
        f"{source} is not a Lima template",
        seen=problem,
        remedy="give a template: name, a path or a URL that `limactl create` accepts",
    )


def _compose(text: str) -> Node | None:
    import yaml

    try:
        return _first(text, _loader("BaseLoader"))
    except yaml.YAMLError:
        # libyaml, where PyYAML has it, reads tabs as Lima does; PyYAML's own errors say more.
        with contextlib.suppress(AttributeError, yaml.YAMLError):
            return _first(text, _loader("CBaseLoader"))
        raise


def _first(text: str, kind: Any) -> Node | None:
    loader = kind(text)
    try:
        node: Node | None = loader.get_node() if loader.check_node() else None
    finally:
        loader.dispose()
    return node


def _loader(base: str) -> Any:
    """A loader that takes plain scalars for nothing but plain scalars."""
    import yaml

    resolvers = {None: [(_PLAIN, re.compile(""))]}
    return type(base, (getattr(yaml, base),), {"yaml_implicit_resolvers": resolvers})


class _Reader:
    """From PyYAML's nodes to values; ValueError for what Lima would read as something else."""

    def __init__(self, text: str, stand_ins: Mapping[str, str]) -> None:
        self._stood_for = {ord(stand_in): char for char, stand_in in stand_ins.items()}
        self._source = text
        self._crlf = "\r\n" in text
        self._nodes = 0
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark, which Lima takes for a part of "
                             "the first key; save it as UTF-8 without one")  # fmt: skip

    def value(self, node: Node, depth: int) -> Any:
        import yaml

        self._nodes += 1
        if self._nodes > _NODE_LIMIT or depth > _DEPTH_LIMIT:
            raise RecursionError
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, kind)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(item, depth + 1) for item in node.value]
        raise ValueError(f"could not determine a constructor for the tag {node.tag!r}")

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        own: set[str] = set()
        for key_node, value_node in node.value:
            if isinstance(key_node.value, list):
                raise ValueError(f"a key is no text{_at(key_node)}")
            value = self.value(value_node, depth + 1)
            is_plain = key_node.tag == _PLAIN
            key = _key(self._text(key_node)) if is_plain else self._text(key_node)
            if node.flow_style and is_plain and ":" in key:
                raise ValueError(f"the key {key!r} in braces, which Lima splits{_at(key_node)}")
            if key in own:
                raise ValueError(f"the key {key!r} is there twice{_at(key_node)}")
            own.add(key)
            if is_plain and key == "<<":
                found |= _merged(value, key_node)
            else:
                found[key] = value
        return found

    def _scalar(self, node: ScalarNode, kind: str) -> Any:
        text = self._text(node)
        if kind == _PLAIN and self._source[node.start_mark.index] == "!":
            return text  # the tag `!` makes a text of it, for Lima too
        if kind in (_PLAIN, "int", "float", "bool") or (kind == "str" and not node.style):
            return _plain(text)  # of `!!str` Lima makes no more than of no tag
        if kind == "null":
            return None
        if kind == "binary":
            data = base64.b64decode("".join(text.split()), validate=True)
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data
        if kind != "str":
            raise ValueError(f"could not determine a constructor for the tag {node.tag!r}")
        if self._crlf and node.style in ("'", '"') and node.start_mark.line != node.end_mark.line:
            raise ValueError("a quoted text of several lines with Windows line ends, which Lima "
                             f"doesn't join as YAML does{_at(node)}")  # fmt: skip
        return text

    def _text(self, node: ScalarNode) -> str:
        text: str = node.value.translate(self._stood_for)
        return text


def _at(node: Node) -> str:
    return f" (line {node.start_mark.line + 1})"


def _merged(value: Any, key: Node) -> dict[str, Any]:
    """What ``<<`` brings: for Lima the last of two equal keys holds, wherever it is from."""
    found: dict[str, Any] = {}
    for mapping in value if isinstance(value, list) else [value]:
        if not isinstance(mapping, dict):
            raise ValueError(f"what << merges is no mapping{_at(key)}")
        found |= mapping
    return found


def _plain(text: str) -> Any:
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text)
    # Lima leaves out tabs inside of plain scalars.
    return Plain(text) if _NUMBER.fullmatch(text) or "\t" in text else text


def _key(text: str) -> str:
    """The name that Lima takes a plain key for."""
    value = _plain(text)
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return value if isinstance(value, str) else text
