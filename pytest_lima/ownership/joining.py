"""What others may use too: joined where it is there, waited for, started, or mended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import LimaError, StartError
from pytest_lima.instance import Instance
from pytest_lima.lima.identity import this_process
from pytest_lima.lima.vitals import Vitals
from pytest_lima.observer import Observer
from pytest_lima.ownership import starting
from pytest_lima.ownership.attach import attach
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.facts import describe, differences, most_vms
from pytest_lima.ownership.failures import failure_of
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.making import Maker
from pytest_lima.ownership.record import FAILED, Record
from pytest_lima.ownership.run import Run
from pytest_lima.ownership.starting import Order
from pytest_lima.ownership.states import States
from pytest_lima.ownership.waiting import await_ready
from pytest_lima.settings import Settings

_WAIT_MARGIN = 30.0
_ATTEMPTS = 5


class Joiner:
    """Joins what another process has made ready, and has made what nobody else has."""

    def __init__(
        self,
        ledger: Ledger,
        claims: Claims,
        maker: Maker,
        settings: Settings,
        observer: Observer,
        run: Run,
    ) -> None:
        """Join for a run; ``maker`` makes what it has to make itself."""
        self._ledger = ledger
        self._claims = claims
        self._maker = maker
        self._settings = settings
        self._observer = observer
        self._run = run

    def shared(self, order: Order) -> tuple[Order, Instance]:
        """An instance that others may use too; the order with its name.

        Raises:
            LimaError: Whatever kept it from being ready.
        """
        facts = describe(order)
        most = most_vms(self._settings.max_vms, order, self._run.free_memory)
        for _ in range(_ATTEMPTS):
            record, ours = self._claims.take(order.filled.key, facts, order.host.limactl, most)
            named = replace(order, name=record.name)
            if ours:
                self._tell_differences(record)
                return named, self._maker.made(named, starting.start)
            instance = self._join(record, named)
            if instance is not None:
                return named, instance
        raise StartError(
            "no VM of this kind stays",
            seen=f"{_ATTEMPTS} of them have died in other processes while this one waited",
            remedy="see the reports of the others",
        )

    def renew(self, order: Order, instance: Instance) -> bool:
        """Give a dead instance a new VM under its old name; whether it has one now.

        Raises:
            LimaError: Whatever kept the new one from being ready.
        """
        seen = self._ledger.read(order.name)
        dead = Vitals(instance.dir).cause_of_death() is not None
        most = self._settings.recreate
        if self._claims.take_over(order.name, dead=dead, most=most, seen=seen):
            self._observer.warn(f"{order.name} has died and is made anew")
            instance.replace(*self._maker.boot(order, starting.start_anew))
            return True
        record = self._ledger.read(order.name)
        if record is None or not record.claimable:
            return False
        if not self._await_ready(record, order):
            return False
        if Vitals(instance.dir).cause_of_death() is not None:
            return False
        instance.replace(*self._attached(order, set_clock=False))
        return True

    def wake(self, order: Order, instance: Instance) -> None:
        """Take up one that stood still: its engines answer again, and its clock is set.

        Raises:
            LimaError: It isn't what it was.
        """
        instance.replace(*self._attached(order, set_clock=True))

    def _join(self, record: Record, order: Order) -> Instance | None:
        """Wait until it is ready and join it; None when the claim has to be made again."""
        if record.state == FAILED:
            raise failure_of(record)
        if not self._await_ready(record, order):
            return None
        begun = realtime.monotonic()
        try:
            other_run = record.run != self._run.id
            attached = self._attached(order, set_clock=other_run)
        except LimaError as error:
            return self._mend(record, order, error)
        self._observer.joined(order.name, realtime.monotonic() - begun)
        return Instance(order.host, *attached, States(order, self._maker))

    def _await_ready(self, record: Record, order: Order) -> bool:
        wait = order.timeout + _WAIT_MARGIN
        return await_ready(record, wait, self._ledger, self._claims, self._observer)

    def _attached(self, order: Order, *, set_clock: bool) -> tuple[Boot, Booted]:
        folder = order.host.limactl.home / order.name
        boot = starting.boot_of(order, self._observer)
        return boot, attach(order.host, folder, self._ledger, set_clock=set_clock)

    def _mend(self, record: Record, order: Order, error: LimaError) -> Instance | None:
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
            return self._maker.made(order, starting.start_anew)
        self._observer.warn(f"{record.name} is started again: {error.what}")
        try:
            return self._maker.made(order, starting.restart)
        except LimaError as again:
            self._observer.warn(f"{record.name} is replaced, as it didn't start: {again.what}")
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
