"""What is merged into a template, and what null means in it: not set, for us as for Lima."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Maps from any name to a text, in which null is an empty text for Lima.
_OF_TEXTS = frozenset({"env", "param", "hosts", "cpuType"})


def without_nulls(value: Any) -> Any:
    """The same without what null says of it: nothing."""
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: _texts(item) if key in _OF_TEXTS else without_nulls(item)
        for key, item in value.items()
        if item is not None
    }


def _texts(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: "" if item is None else item for key, item in value.items()}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on ``base``: mappings merge, null changes nothing, everything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            old = merged.get(key)
            merged[key] = merge(old if isinstance(old, Mapping) else {}, value)
        elif value is not None:
            merged[key] = without_nulls(value)
    return merged


def take_out(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` without what is null in ``over``."""
    return {
        key: take_out(value, over[key])
        if isinstance(value, Mapping) and isinstance(over.get(key), Mapping)
        else value
        for key, value in base.items()
        if key not in over or over[key] is not None
    }
