"""Who holds a lock: noted beside its file, for whoever waits for it.

Not in the lock's own file, which is emptied by whoever tries to take it. The note is for people
alone and decides nothing, so what goes wrong with it is passed over.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.lima import identity
from pytest_lima.lima.identity import Identity

SUFFIX = ".holder"


@dataclass(frozen=True)
class Holder:
    """A process that has taken a lock.

    Attributes:
        process: Which.
        since: When, seconds since the epoch.
    """

    process: Identity
    since: float

    def __str__(self) -> str:
        """Its pid, since when, and its command line."""
        argv = identity.command_line(self.process.pid) if self.process.alive() else ()
        line = " ".join(argv) or ("elsewhere" if self.process.elsewhere else "which is gone")
        return f"process {self.process.pid} for {realtime.now() - self.since:.0f} s: {line}"


def note_holder(lock: Path) -> None:
    """Leave word that this process holds a lock now."""
    noted = {"process": asdict(identity.this_process()), "since": realtime.now()}
    with suppress(OSError):  # a full disk must not keep us from deleting what would make room
        lock.with_suffix(SUFFIX).write_text(json.dumps(noted))


def holder_of(lock: Path) -> Holder | None:
    """Who took a lock last; None where that isn't known."""
    try:
        noted = json.loads(lock.with_suffix(SUFFIX).read_text())
        return Holder(Identity(**noted["process"]), float(noted["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
