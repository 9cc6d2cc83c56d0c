"""What killed processes leave in the ledger's folder beside its records."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.lima import identity

HALF = ".tmp"  # what `paths.write_whole` has begun

_HALF_NAME = re.compile(r"\.(\d+)-\d+\.tmp")
_OF_AN_INSTANCE = re.compile(r"mend-(.+?)(?:\.holder)?|(.+)\.phase")
# A run's controller counts its crashed workers too.
_LONGEST_RUN = 86400.0


def clear(folder: Path) -> None:
    """Remove halves of files, and what belongs to no record; under the ledger's lock.

    A record is written under that lock, so each half of one is a killed process's. What is
    written without it, such as a phase, tells by its name who writes it.
    """
    for file in folder.iterdir():
        if _is_half(file, under_lock=".json." in file.name) or _is_of_nothing(file):
            file.unlink(missing_ok=True)
    for file in folder.glob(f"runs/*/*{HALF}"):
        if _is_half(file, under_lock=False):
            file.unlink(missing_ok=True)


def old_runs(folder: Path) -> list[str]:
    """The runs that nobody has joined or left for longer than any takes."""
    before = realtime.now() - _LONGEST_RUN
    return [run.name for run in folder.glob("runs/*") if run.stat().st_mtime < before]


def _is_half(file: Path, *, under_lock: bool) -> bool:
    """Whether it is one, and nobody's who still writes it."""
    found = _HALF_NAME.search(file.name)
    return found is not None and (under_lock or identity.of(int(found[1])) is None)


def _is_of_nothing(file: Path) -> bool:
    """Whether it is a phase, or a lock for mending, of an instance without a record."""
    found = _OF_AN_INSTANCE.fullmatch(file.name)
    return found is not None and not file.with_name(f"{found[1] or found[2]}.json").exists()
