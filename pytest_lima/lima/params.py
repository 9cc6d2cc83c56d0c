"""Params of a template: Lima refuses one that nothing uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Where Lima looks for a use (pkg/limayaml: validateParamIsUsed).
_USERS: Mapping[str, tuple[str, ...]] = {
    "provision": ("script", "content", "expression", "owner", "path", "permissions"),
    "probes": ("script",),
    "copyToHost": ("guest", "host"),
    "portForwards": ("guestSocket", "hostSocket"),
    "mounts": ("location", "mountPoint"),
}


def keep_used(template: Mapping[str, Any], filled: Mapping[str, Any]) -> list[dict[str, str]]:
    """Provision entries that use what nothing uses any more.

    What used a param may have been taken out, such as a mount. The param stays, as it may be set
    from outside; a comment is a use too.

    Args:
        template: Before anything was taken out.
        filled: Afterwards.
    """
    params = filled.get("param")
    names = params if isinstance(params, Mapping) else {}
    lost = [name for name in names if _is_used(name, template) and not _is_used(name, filled)]
    if not lost:
        return []
    uses = " ".join(f"PARAM_{name}" for name in lost)
    return [{"mode": "system", "script": f"#!/bin/sh\n# Used by what is left out here: {uses}\n"}]


def _is_used(name: str, template: Mapping[str, Any]) -> bool:
    quoted = re.escape(name)
    use = re.compile(rf"{{{{[^}}]*\.Param\.{quoted}[^}}]*}}}}|\bPARAM_{quoted}\b")
    return any(use.search(text) for text in _texts(template))


def _texts(template: Mapping[str, Any]) -> Iterator[str]:
    for key, fields in _USERS.items():
        entries = template.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping):
                yield from (str(entry[field]) for field in fields if entry.get(field) is not None)
