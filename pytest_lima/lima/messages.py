"""What limactl and its host agent say: log lines in JSON, among others that aren't."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def complaint(log: str) -> str:
    """The errors in a log, or its last line where there are none."""
    lines = [line for line in log.splitlines() if line.strip()]
    bad = [line for line in lines if _entry(line).get("level") in ("fatal", "error")]
    return texts(bad or lines[-1:])


def told(log: str, lines: int) -> str:
    """The last texts of a log that are more than debugging."""
    kept = [line for line in log.splitlines() if _entry(line).get("level") != "debug"]
    return texts(kept[-lines:])


def texts(lines: Sequence[str]) -> str:
    """The texts of log lines; a line that is no JSON stays as it is."""
    return "\n".join(str(_entry(line).get("msg", line)) for line in lines)


def _entry(line: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
