"""Which of the instances that are there is joined: a choice by their records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_lima.lima.identity import Identity
from pytest_lima.ownership.record import FAILED, READY, Record
from pytest_lima.ownership.run import Run
from pytest_lima.settings import Settings


@dataclass(frozen=True)
class Wanted:
    """What is looked for, and for whom.

    Attributes:
        key: Of the filled template.
        home: The LIMA_HOME it has to be in.
        most: VMs that the workers of a run may have, with ``--lima-share=worker``.
        run: Of the process that asks.
        settings: Its.
        process: Itself.
    """

    key: str
    home: str
    most: int
    run: Run
    settings: Settings
    process: Identity


def choose(records: Sequence[Record], wanted: Wanted) -> Record | None:
    """The instance to join; one that failed for others of our run; None to make one."""
    known = [record for record in records
             if record.shared and record.key == wanted.key and record.home == wanted.home
             and _may_join(record, wanted)]  # fmt: skip
    joinable = [record for record in known if record.claimable]
    if wanted.run.many and wanted.settings.share == "worker":
        free = [record for record in joinable if set(record.holders) <= {wanted.process}]
        if free or len(joinable) < wanted.most:
            return free[0] if free else None
        return min(joinable, key=lambda record: len(record.holders))
    if joinable:
        return min(joinable, key=lambda record: record.state != READY)
    failed = [record for record in known if record.state == FAILED
              and record.run == wanted.run.id and record.starter != wanted.process]  # fmt: skip
    return failed[0] if failed else None


def _may_join(record: Record, wanted: Wanted) -> bool:
    if record.run == wanted.run.id:
        stopped = record.keep and wanted.settings.teardown == "stop"
        return record.state == FAILED or not stopped
    return wanted.settings.reuse and record.reuse and not record.owner.elsewhere
