"""Who may be deleted, and deleting them: the dead owners' instances, and the idle ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.lima import host
from pytest_lima.lima.identity import this_process
from pytest_lima.lima.vitals import agent_answers
from pytest_lima.ownership import removal
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import ENDING, STARTING, Record

_LONGEST_START = 7200.0

Warn = Callable[[str], None]


class Sweeper:
    """Deletes by record."""

    def __init__(self, ledger: Ledger, environ: Mapping[str, str], warn: Warn) -> None:
        self._ledger = ledger
        self._environ = environ
        self._warn = warn

    def orphans(self) -> dict[str, str]:
        """Delete what nobody will ever want: owner and users dead, not kept, or idle too long.

        Returns:
            Of what was deleted, by name, a clause that says why: ``which …``.
        """
        self._ledger.clear_leftovers()
        dead = self._dead_elsewhere()
        return self._end_all(lambda record: self._why_orphaned(record, dead))

    def named(self, names: Iterable[str]) -> list[str]:
        """Delete these, whoever they belong to; not what lives in another container."""
        wanted = set(names)
        dead = self._dead_elsewhere()

        def why(record: Record) -> str:
            lives_elsewhere = record.owner.elsewhere and record not in dead
            return "which was asked for" if record.name in wanted and not lives_elsewhere else ""

        return list(self._end_all(why))

    def end(self, record: Record) -> None:
        """Delete one that was taken for ending by this process.

        Raises:
            CleanupError: Something of it is left, and so is its record.
        """
        limactl = host.caller(record.limactl, record.home, self._environ)
        removal.remove_for_good(limactl, record.name, self._warn)
        with self._ledger.lock():
            now = self._ledger.read(record.name)
            if now is None or not now.is_taken_from(this_process()):
                self._ledger.forget(record.name)

    def _dead_elsewhere(self) -> list[Record]:
        """Those of other containers that aren't in use there, as far as can be seen.

        Their host agents are asked for that, which may take seconds, so not under the lock. One
        whose record has changed by the time that counts as alive.
        """
        return [record for record in self._ledger.records()
                if record.owner.elsewhere and not _may_live(record)]  # fmt: skip

    def _end_all(self, why: Callable[[Record], str]) -> dict[str, str]:
        """Delete those for which there is a reason; the reasons of those that are gone."""
        mine = this_process()
        with self._ledger.lock():
            taken = [(record, reason) for record in self._ledger.records()
                     if (reason := why(record))]  # fmt: skip
            for record, _ in taken:
                self._ledger.mark_ending(record, mine)
        ended = {}
        for record, reason in taken:
            try:
                self.end(record)
            except (LimaError, OSError) as error:
                self._warn(f"{record.name} could not be removed: {error}")
            else:
                ended[record.name] = reason
        return ended

    def _why_orphaned(self, record: Record, dead: Collection[Record]) -> str:
        if _is_idle(record):
            return f"which nobody had used for {record.idle:g} s"
        if record.owner.elsewhere and record not in dead:
            return ""
        if record.keep and not _was_left_halfway(record):
            deleted = not (Path(record.home) / record.name).exists()
            return "which somebody had deleted" if deleted and not record.holders else ""
        return "which a killed run had left" if self._is_left(record) else ""

    def _is_left(self, record: Record) -> bool:
        if record.state == ENDING:
            return not record.starter.alive()
        return not (record.holders or record.owner.alive() or self._ledger.members(record.run))


def _may_live(record: Record) -> bool:
    """Whether an instance of another container is in use there, as far as can be seen."""
    starting = record.state == STARTING and realtime.now() < record.used + _LONGEST_START
    return starting or agent_answers(Path(record.home) / record.name)


def _was_left_halfway(record: Record) -> bool:
    """Whether a kept one was being deleted, stopped or started again."""
    return record.state == ENDING or (record.state == STARTING and not record.claimable)


def _is_idle(record: Record) -> bool:
    return (
        record.keep
        and _is_ours_to_end(record)
        and record.idle is not None
        and not record.holders
        and realtime.now() >= record.used + record.idle
    )


def seconds_until_idle(records: Iterable[Record]) -> float | None:
    """When the first of the kept will have been idle for long enough; None: never.

    Of one in use that can't be told: infinity.
    """
    ends = [math.inf if one.holders else one.used + one.idle for one in records
            if one.keep and one.idle is not None and _is_ours_to_end(one)]  # fmt: skip
    return max(0.0, min(ends) - realtime.now()) if ends else None


def _is_ours_to_end(record: Record) -> bool:
    """Unless somebody is at it already, or it is another container's."""
    return record.state not in (STARTING, ENDING) and not record.owner.elsewhere
