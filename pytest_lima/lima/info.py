"""What limactl says of an instance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class InstanceInfo:
    """What ``limactl list`` says of an instance.

    Attributes:
        status: Lima's word: Running, Stopped, Broken, …; Running is not ready.
        memory: MiB.
        config: The resolved lima.yaml.
    """

    name: str
    status: str
    dir: Path
    vmtype: str
    arch: str
    cpus: int
    memory: int
    config: Mapping[str, Any] = field(repr=False)

    @property
    def user(self) -> str:
        """The guest's login user."""
        return str(self.config["user"]["name"])


def parse(line: str) -> InstanceInfo | None:
    """One line of ``limactl list --format=json``; None where it can't be read."""
    try:
        entry = json.loads(line)
        return InstanceInfo(
            name=entry["name"],
            status=entry["status"],
            dir=Path(entry["dir"]),
            vmtype=entry.get("vmType", ""),
            arch=entry.get("arch", ""),
            cpus=entry.get("cpus", 0),
            memory=entry.get("memory", 0) // (1024 * 1024),
            config=entry.get("config") or {},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
