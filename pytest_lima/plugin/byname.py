"""Which fixtures a test may come to use, those included that are asked for by name.

``request.getfixturevalue("lima")`` is seen by nobody before it runs: neither that the test wants a
VM, nor until when it is wanted. The names that a test's code and its fixtures' code hold tell it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

_ASKS = "getfixturevalue"
# In a doctest, by a name of its own.
_IN_DOCTEST = r"""getfixture\(\s*["'](\w+)["']"""

_known_key = pytest.StashKey[dict[object, tuple[frozenset[str], bool]]]()


def fixtures_of(node: pytest.Item, more: Iterable[str] = ()) -> frozenset[str]:
    """The names of the fixtures that a test may use, and of what they need.

    Texts in its code that name no fixture are among them.

    Args:
        node: The test, or its definition.
        more: Names that it may ask for besides, where it asks by name at all.
    """
    names: list[str] = list(getattr(node, "fixturenames", ()))
    said = _names_in(getattr(node, "function", None))
    reached, asks = _closure(node, names)
    if said is not None or asks:
        wanted = {*(said or ()), *more, *_parameters(node)} - reached
        reached = _closure(node, [*names, *sorted(wanted)])[0] if wanted else reached
    in_doctest = {name for text in _doctest(node) for name in re.findall(_IN_DOCTEST, text)}
    return _closure(node, [*names, *sorted(in_doctest)])[0] if in_doctest else reached


def folder_of(name: str, node: pytest.Item) -> Path | None:
    """Where the file lies that defines the fixture that a test sees by this name."""
    manager = node.config.pluginmanager.get_plugin("funcmanage")
    definitions = manager.getfixturedefs(name, node) if manager else None
    code = getattr(definitions[-1].func, "__code__", None) if definitions else None
    return Path(code.co_filename).parent if isinstance(code, CodeType) else None


def _closure(node: pytest.Item, names: list[str]) -> tuple[frozenset[str], bool]:
    """All that the fixtures of these names lead to; whether one of them asks by name."""
    known = node.config.stash.setdefault(_known_key, {})
    key = (node.parent, *names)  # tests beside each other see the same fixtures
    if key not in known:
        manager = node.config.pluginmanager.get_plugin("funcmanage")
        reached: set[str] = set()
        asks = False
        todo = [*names]
        while todo:
            name = todo.pop()
            if name not in reached:
                reached.add(name)
                for definition in manager.getfixturedefs(name, node) or () if manager else ():
                    said = _names_in(definition.func)
                    asks = asks or said is not None
                    todo += [*definition.argnames, *(said or ())]
        known[key] = frozenset(reached), asks
    return known[key]


def _parameters(node: pytest.Item) -> Iterator[str]:
    """Texts among the parameters, as in ``getfixturevalue(request.param)``."""
    callspec = getattr(node, "callspec", None)
    values = callspec.params.values() if callspec is not None else ()
    return (value for value in values if isinstance(value, str))


def _doctest(node: pytest.Item) -> Iterator[str]:
    return (example.source for example in getattr(getattr(node, "dtest", None), "examples", ()))


def _names_in(function: Callable[..., Any] | None) -> frozenset[str] | None:
    """The texts in a function that asks for fixtures by name; None for others."""
    code = getattr(function, "__code__", None)
    return _texts(code) if isinstance(code, CodeType) else None


@lru_cache(maxsize=1024)
def _texts(code: CodeType) -> frozenset[str] | None:
    codes = [code]
    for outer in codes:  # grows by those defined in it
        codes += [inner for inner in outer.co_consts if isinstance(inner, CodeType)]
    if not any(_ASKS in one.co_names for one in codes):
        return None
    return frozenset(text for one in codes for text in one.co_consts if isinstance(text, str))
