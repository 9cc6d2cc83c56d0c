"""What others may use too: joined where it is there, waited for, started, or mended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import LimaError, StartError
from pytest_lima.instance import Instance
from pytest_lima.lima.identity import this_process
from pytest_lima.lima.vitals import Vitals
from pytest_lima.ownership import starting
from pytest_lima.ownership.attach import attach
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.facts import describe, differences, most_vms
from pytest_lima.ownership.failures import failure_of
from pytest_lima.ownership.making import Maker
from pytest_lima.ownership.record import Record, State
from pytest_lima.ownership.run import RunContext
from pytest_lima.ownership.waiting import await_ready
from pytest_lima.ready import ReadyVM
from pytest_lima.request import StartRequest

_WAIT_MARGIN = 30.0
_ATTEMPTS = 5


class Joiner:
    """Joins what another process has made ready, and has made what nobody else has."""

    def __init__(self, context: RunContext, claims: Claims, maker: Maker) -> None:
        """Join for a run; ``maker`` makes what it has to make itself."""
        self._ledger = context.ledger
        self._run = context.run
        self._observer = context.observer
        self._settings = context.settings
        self._claims = claims
        self._maker = maker

    def shared(self, request: StartRequest) -> tuple[StartRequest, Instance]:
        """An instance that others may use too; the request with its name.

        Raises:
            LimaError: Whatever kept it from being ready.
        """
        facts = describe(request)
        most = most_vms(self._settings.max_vms, request, self._run.free_memory)
        for _ in range(_ATTEMPTS):
            record, ours = self._claims.take(request.filled.key, facts, request.host.limactl, most)
            named = replace(request, name=record.name)
            if ours:
                self._tell_differences(record)
                return named, self._maker.made(named, starting.start)
            instance = self._join(record, named)
            if instance is not None:
                return named, instance
        raise StartError(
            "VMs of this spec keep dying",
            seen=f"{_ATTEMPTS} of them died in other processes while this one waited",
            remedy="see the reports of the other processes",
        )

    def renew(self, request: StartRequest, instance: Instance) -> bool:
        """Give a dead instance a new VM under its old name; whether it has one now.

        Raises:
            LimaError: Whatever kept the new one from being ready.
        """
        seen = self._ledger.read(request.name)
        dead = Vitals(instance.dir).cause_of_death() is not None
        most = self._settings.recreate
        if self._claims.take_over(request.name, dead=dead, most=most, seen=seen):
            self._observer.warn(f"{request.name} has died; a new VM takes its place")
            instance._replace(self._maker.boot(request, starting.start_anew))
            return True
        record = self._ledger.read(request.name)
        if record is None or not record.claimable:
            return False
        if not self._await_ready(record, request):
            return False
        if Vitals(instance.dir).cause_of_death() is not None:
            return False
        instance._replace(self._attached(request, set_clock=False))
        return True

    def wake(self, request: StartRequest, instance: Instance) -> None:
        """Take up one that stood still: its engines answer again, and its clock is set.

        Raises:
            LimaError: It isn't what it was.
        """
        instance._replace(self._attached(request, set_clock=True))

    def _join(self, record: Record, request: StartRequest) -> Instance | None:
        """Wait until it is ready and join it; None when the claim has to be made again."""
        if record.state == State.FAILED:
            raise failure_of(record)
        if not self._await_ready(record, request):
            return None
        begun = realtime.monotonic()
        try:
            other_run = record.run != self._run.id
            attached = self._attached(request, set_clock=other_run)
        except LimaError as error:
            return self._mend(record, request, error)
        self._observer.joined(request.name, realtime.monotonic() - begun)
        return Instance(attached, self._maker)

    def _await_ready(self, record: Record, request: StartRequest) -> bool:
        wait = request.timeout + _WAIT_MARGIN
        return await_ready(record, wait, self._ledger, self._claims, self._observer)

    def _attached(self, request: StartRequest, *, set_clock: bool) -> ReadyVM:
        return attach(request, self._ledger, set_clock=set_clock)

    def _mend(self, record: Record, request: StartRequest, error: LimaError) -> Instance | None:
        """One of an earlier run that is stopped or broken is started again, or replaced."""
        folder = Path(record.home) / record.name
        dead = Vitals(folder).cause_of_death() is not None
        others = [one for one in record.holders if one != this_process()]
        if record.run == self._run.id or (others and not dead):
            self._claims.drop(record.name)
            raise error
        if not self._claims.take_over(record.name, dead=True, seen=record):
            return None
        if not dead or record.failed or not (folder / "disk").exists():
            self._observer.warn(f"{record.name} is replaced: {error.what}")
            return self._maker.made(request, starting.start_anew)
        self._observer.warn(f"{record.name} is started again: {error.what}")
        try:
            return self._maker.made(request, starting.restart)
        except LimaError as again:
            self._observer.warn(f"{record.name} is replaced, as it did not start: {again.what}")
            return None

    def _tell_differences(self, ours: Record) -> None:
        """Why a VM that is there to be reused isn't."""
        if not self._settings.reuse:
            return
        for record in self._ledger.records():
            if record.reuse and record.claimable and record.run != self._run.id:
                reasons = differences(ours.facts, record.facts)
                if record.home != ours.home:
                    reasons = [f"its LIMA_HOME is {record.home}"]
                if reasons:
                    self._observer.warn(f"{record.name} is not reused: {'; '.join(reasons)}")
