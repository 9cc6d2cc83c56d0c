"""Who may be deleted, and deleting them: the dead owners' instances, and the idle ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

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

    def orphans(self) -> list[str]:
        """Delete what nobody will ever want: owner and users dead, not kept, or idle too long.

        Returns:
            The names of what was deleted.
        """
        return self._end_all(lambda record: self._is_orphan(record) or _is_idle(record))

    def of_run(self, run: str) -> list[str]:
        """Delete what a run that is over has left, unless it is kept or others use it."""
        mine = this_process()
        return self._end_all(
            lambda record: (
                record.run == run
                and not record.keep
                and not [one for one in record.holders if one != mine]
                and not self._ledger.members(run)
            )
        )

    def named(self, names: Iterable[str]) -> list[str]:
        """Delete these, whoever they belong to; not what lives in another container."""
        wanted = set(names)
        return self._end_all(
            lambda record: (
                record.name in wanted and not (record.owner.elsewhere and _may_live(record))
            )
        )

    def end(self, record: Record) -> None:
        """Delete one that was taken for ending by this process.

        Raises:
            CleanupError: Something of it is left, and so is its record.
        """
        limactl = host.caller(record.limactl, record.home, self._environ)
        removal.remove_for_good(limactl, record.name, self._warn)
        self._ledger.forget(record.name)

    def _end_all(self, wanted: Callable[[Record], bool]) -> list[str]:
        mine = this_process()
        with self._ledger.lock():
            taken = [record for record in self._ledger.records() if wanted(record)]
            for record in taken:
                self._ledger.write(replace(record, state=ENDING, starter=mine))
        ended = []
        for record in taken:
            try:
                self.end(record)
            except (LimaError, OSError) as error:
                self._warn(f"{record.name} could not be removed: {error}")
            else:
                ended.append(record.name)
        return ended

    def _is_orphan(self, record: Record) -> bool:
        if record.owner.elsewhere and _may_live(record):
            return False
        if record.state == ENDING:
            return not record.starter.alive()
        if record.keep:
            # Somebody deleted it by hand: only the record is left to remove.
            return not record.holders and not (Path(record.home) / record.name).exists()
        return not (record.holders or record.owner.alive() or self._ledger.members(record.run))


def _may_live(record: Record) -> bool:
    """Whether an instance of another container is in use there, as far as can be seen."""
    starting = record.state == STARTING and time.time() < record.used + _LONGEST_START
    return starting or agent_answers(Path(record.home) / record.name)


def _is_idle(record: Record) -> bool:
    return (
        record.keep
        and not record.owner.elsewhere
        and record.idle is not None
        and not record.holders
        and record.state != ENDING
        and time.time() >= record.used + record.idle
    )


def seconds_until_idle(records: Iterable[Record]) -> float | None:
    """When the first of the kept will have been idle for long enough; None: never."""
    ends = [one.used + one.idle for one in records if one.keep and one.idle is not None]
    return max(0.0, min(ends) - time.time()) if ends else None
