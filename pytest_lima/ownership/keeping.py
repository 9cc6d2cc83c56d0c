"""What is left behind at the end of a run, and for how long."""

from __future__ import annotations

from dataclasses import replace

from pytest_lima import realtime
from pytest_lima.ownership.record import READY, Record
from pytest_lima.settings import Settings

# A VM that is left for the next run, with nobody having said for how long.
_REUSE_IDLE = 1800.0


def wanted(record: Record, settings: Settings) -> bool:
    """Whether an instance that its last user gives back is to be left behind."""
    if settings.teardown == "stop" and record.state == READY:
        return True
    if settings.leaves_for_reuse and record.reuse and record.state == READY:
        return True
    return settings.keep == "always" or (settings.keep == "on-failure" and record.failed)


def kept(record: Record, settings: Settings) -> Record:
    """Its record then, which says how long it may be idle."""
    idle = settings.idle
    if idle is None and settings.reuse:
        idle = _REUSE_IDLE
    return replace(record, keep=True, idle=idle, used=realtime.now())
