"""Further disks of a VM, which are Lima's own and outlive it.

Lima finds them by name in its LIMA_HOME, and the name is the mount point in the guest
(``/mnt/lima-NAME``); how large they are no template says. So they are the user's to make.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_lima.errors import TemplateError


def names(filled: Mapping[str, Any]) -> tuple[str, ...]:
    """The disks that a lima.yaml's ``additionalDisks`` name."""
    entries = filled.get("additionalDisks")
    found = entries if isinstance(entries, list) else []
    return tuple(
        str(entry.get("name")) if isinstance(entry, Mapping) else str(entry) for entry in found
    )


def require(source: str, wanted: Sequence[str], home: Path) -> None:
    """Refuse a machine whose disks aren't there, before anything of it is made.

    Args:
        source: Where its template is from, for the message.
        wanted: Their names.
        home: LIMA_HOME.

    Raises:
        TemplateError: One is missing.
    """
    missing = [name for name in wanted if not (home / "_disks" / name / "datadisk").exists()]
    if not missing:
        return
    make = " && ".join(
        f"LIMA_HOME={shlex.quote(str(home))} limactl disk create {shlex.quote(name)} --size=10GiB"
        for name in missing
    )
    raise TemplateError(
        f"the template {source} wants a disk that isn't there: {', '.join(missing)}",
        seen=f"additionalDisks: no {home / '_disks' / missing[0]}, and no size to make it with",
        remedy='do without it by overrides={"additionalDisks": []} in the marker, or as the '
        f"fixture lima_overrides; or make it, for one VM at a time: {make}",
    )
