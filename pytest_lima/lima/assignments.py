"""yq expressions of ``--lima-set``, as far as their effect is known: plain assignments.

limactl applies them after us, to what we have decided by then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_ASSIGNMENT = re.compile(r"\s*\.(\w+(?:\.\w+)*)\s*=\s*(.+?)\s*", re.ASCII | re.DOTALL)


def assigned(edit: str) -> dict[str, Any] | None:
    """What ``.a.b = value`` sets, as a mapping; None for any other expression."""
    found = _ASSIGNMENT.fullmatch(edit)
    if found is None:
        return None
    try:
        value = json.loads(found[2])
    except ValueError:
        return None
    *parents, key = found[1].split(".")
    result = {key: value}
    for parent in reversed(parents):
        result = {parent: result}
    return result


def last(key: str, edits: Iterable[str]) -> object:
    """What they set a key at the top to in the end; None where none does."""
    values = [(assigned(edit) or {}).get(key) for edit in edits]
    return next((value for value in reversed(values) if value is not None), None)
