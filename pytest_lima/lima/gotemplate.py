"""Go's text templates (``{{.UID}}``) in texts of a lima.yaml, as far as they are names alone.

Lima expands them with values of the guest or of this host. Go has conditions, functions and
pipelines too: those are refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SPACE = " \t\r\n"
# With ``{{- `` the space before it goes too, with `` -}}`` the space behind it.
_ACTION = re.compile(r"\{\{(?P<left>-(?=\s))?(?P<body>.*?)(?P<right>(?<=\s)-)?\}\}", re.DOTALL)
_NAME = re.compile(r"\$?\.(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", re.ASCII)
_COMMENT = re.compile(r"/\*.*\*/", re.DOTALL)


class NotANameError(ValueError):
    """What can't be expanded: another action than a known name; the text is that action."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its names replaced.

    Args:
        text: May hold ``{{.Name}}`` and the like.
        values: By name without the first dot, such as ``UID`` and ``Param.version``.

    Raises:
        NotANameError: There is something else in it.
    """
    pieces = []
    end, trimmed = 0, False
    for action in _ACTION.finditer(text):
        pieces.append(_literal(text[end : action.start()], trimmed, bool(action["left"])))
        pieces.append(_value(action, values))
        end, trimmed = action.end(), bool(action["right"])
    pieces.append(_literal(text[end:], trimmed, right=False))
    return "".join(pieces)


def params(values: object) -> dict[str, str]:
    """A lima.yaml's ``param``, as values for ``expand``."""
    found = values if isinstance(values, Mapping) else {}
    return {f"Param.{name}": str(value) for name, value in found.items()}


def _literal(text: str, left: bool, right: bool) -> str:
    if "{{" in text:
        raise NotANameError(text[text.index("{{") :])
    text = text.lstrip(_SPACE) if left else text
    return text.rstrip(_SPACE) if right else text


def _value(action: re.Match[str], values: Mapping[str, str]) -> str:
    body = action["body"].strip(_SPACE)
    if _COMMENT.fullmatch(body):
        return ""
    name = _NAME.fullmatch(body)
    if name is None or name["name"] not in values:
        raise NotANameError(action[0])
    return values[name["name"]]
