"""From an order to an instance: join one that is there, wait for one, start or mend one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import LimaError, StartError
from pytest_lima.instance import Instance
from pytest_lima.lima import paths
from pytest_lima.lima.identity import free_memory, this_process
from pytest_lima.lima.vitals import Vitals
from pytest_lima.observer import Observer
from pytest_lima.ownership import starting
from pytest_lima.ownership.attach import attach, write_state
from pytest_lima.ownership.claims import DELETE, KEEP, Claims
from pytest_lima.ownership.ending import Ending
from pytest_lima.ownership.facts import describe, differences, fits_beside, most_vms
from pytest_lima.ownership.failures import failure_of
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import FAILED, Record
from pytest_lima.ownership.run import Run
from pytest_lima.ownership.starting import Order
from pytest_lima.ownership.states import States
from pytest_lima.ownership.waiting import await_ready
from pytest_lima.settings import Settings
from pytest_lima.warm.snapshots import Snapshots

_WAIT_MARGIN = 30.0
_ATTEMPTS = 5

_How = Callable[[Order, Observer, Ledger], tuple[Boot, Booted]]


class Maker:
    """Makes the instances of a pool."""

    def __init__(
        self,
        ledger: Ledger,
        claims: Claims,
        ending: Ending,
        settings: Settings,
        observer: Observer,
        run: Run,
        adopt: Callable[[Order, Instance], None],
        await_guard: Callable[[], None],
    ) -> None:
        """Make them for a run.

        ``adopt`` gets each instance that nobody else does, for it to be given back;
        ``await_guard`` returns when a reaper watches over this process.
        """
        self._ledger = ledger
        self._claims = claims
        self._ending = ending
        self._settings = settings
        self._observer = observer
        self._run = run
        self._adopt = adopt
        self._await_guard = await_guard

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
                return named, self._made(named, starting.start)
            instance = self._join(record, named)
            if instance is not None:
                return named, instance
        raise StartError(
            "no VM of this kind stays",
            seen=f"{_ATTEMPTS} of them have died in other processes while this one waited",
            remedy="see the reports of the others",
        )

    def alone(self, order: Order) -> Instance:
        """An instance that nobody else gets.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        self._claims.take_alone(order.name, describe(order), order.host.limactl)
        return self._made_alone(order)

    def spare(self, order: Order) -> Instance | None:
        """One that nobody has asked for yet; None where there is no room for it.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        most = self._settings.max_vms

        def fits(running: int) -> bool:
            return fits_beside(most, order, running, free_memory())

        if not self._claims.take_spare(order.name, describe(order), order.host.limactl, fits):
            return None
        return self._made(order, starting.start)

    def wake(self, order: Order, instance: Instance) -> None:
        """Take up a spare one that stood still: log in, set its clock, have its engines answer.

        Raises:
            LimaError: It isn't what it was.
        """
        instance.replace(*self._attached(order, set_clock=True))

    def double(self, order: Order, booted: Booted) -> Instance:
        """Another instance that nobody else gets, in the state that one of ``order`` is in.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        other = replace(order, name=paths.instance_name())
        self._claims.take_alone(other.name, describe(other), other.host.limactl)
        with self._given_up_on_failure(other.name):
            kept = Snapshots(other.host, other.name).take_first(booted)
        return self._made_alone(replace(other, kept=kept))

    def anew(self, order: Order, what: str, let_go: Callable[[], None]) -> tuple[Boot, Booted]:
        """An instance from nothing under its name; ``let_go`` is called when it is to end.

        Raises:
            LimaError: Others use it, or whatever kept the new one from being ready.
        """
        self._claims.begin_anew(order.name, what, describe(order), order.host.limactl)

        def start(order: Order, observer: Observer, ledger: Ledger) -> tuple[Boot, Booted]:
            let_go()
            return starting.start_anew(order, observer, ledger)

        return self._boot(order, start)

    def require_alone(self, name: str, what: str) -> None:
        """Nobody else may use what is about to stand still.

        Raises:
            LimaError: Others do.
        """
        self._claims.require_alone(name, what)

    def renew(self, order: Order, instance: Instance) -> bool:
        """Give a dead instance a new VM under its old name; whether it has one now.

        Raises:
            LimaError: Whatever kept the new one from being ready.
        """
        dead = Vitals(instance.dir).cause_of_death() is not None
        if self._claims.take_over(order.name, dead=dead, most=self._settings.recreate):
            self._observer.warn(f"{order.name} has died and is made anew")
            instance.replace(*self._boot(order, starting.start_anew))
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

    def _join(self, record: Record, order: Order) -> Instance | None:
        """Wait until it is ready and log in; None when the claim has to be made again."""
        if record.state == FAILED:
            raise failure_of(record)
        if not self._await_ready(record, order):
            return None
        begun = time.monotonic()
        try:
            other_run = record.run != self._run.id
            instance = Instance(order.host, *self._attached(order, set_clock=other_run))
        except LimaError as error:
            return self._mend(record, order, error)
        self._observer.joined(order.name, time.monotonic() - begun)
        return instance

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
        if not self._claims.take_over(record.name, dead=True):
            return None
        if not dead or record.failed or not (folder / "disk").exists():
            self._observer.warn(f"{record.name} is replaced: {error.what}")
            return self._made(order, starting.start_anew)
        self._observer.warn(f"{record.name} is started again: {error.what}")
        try:
            return self._made(order, starting.restart)
        except LimaError as again:
            self._observer.warn(f"{record.name} is replaced, as it didn't start: {again.what}")
            return None

    def _made(self, order: Order, how: _How) -> Instance:
        return Instance(order.host, *self._boot(order, how), States(order, self))

    def _made_alone(self, order: Order) -> Instance:
        instance = self._made(order, starting.start)
        self._adopt(order, instance)
        return instance

    def _boot(self, order: Order, how: _How) -> tuple[Boot, Booted]:
        """Boot what is recorded as ours to start; nothing is left of it when that fails."""
        with self._given_up_on_failure(order.name):
            self._await_guard()
            boot, booted = how(order, self._observer, self._ledger)
            try:
                write_state(booted)
                self._claims.ready(order.name)
            except BaseException:
                booted.close()
                raise
        return boot, booted

    @contextmanager
    def _given_up_on_failure(self, name: str) -> Iterator[None]:
        try:
            with _system_errors_told(name):
                yield
        except BaseException as error:
            try:
                self._give_up(name, error if isinstance(error, LimaError) else None)
            except (LimaError, OSError):
                pass  # what kept it from booting says more; close() tries again, and tells
            finally:
                self._observer.failed(name)
            raise

    def _give_up(self, name: str, error: LimaError | None) -> None:
        try:
            decision = self._claims.failed(name, error)
        except OSError:
            decision = DELETE  # a full disk, for one: that makes room
        record = self._ledger.read(name)
        if record is None:
            return
        if decision == KEEP and (Path(record.home) / name / "lima.yaml").exists():
            self._ending.note_kept(record)
            return
        self._ending.discard(record)

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


@contextmanager
def _system_errors_told(name: str) -> Iterator[None]:
    """What the system refuses is a failure as any other, not an interrupt of this process alone."""
    try:
        yield
    except OSError as error:
        raise StartError(
            f"{name} could not be made ready: the system refused something",
            seen=str(error),
            remedy="make room, or mend whatever that names",
        ) from error
