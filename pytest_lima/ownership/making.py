"""From an order to an instance of ours: started, ready, and gone again where that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import LimaError, StartError
from pytest_lima.instance import Instance
from pytest_lima.lima import causes, paths
from pytest_lima.lima.identity import free_memory, this_process
from pytest_lima.observer import Observer
from pytest_lima.ownership import starting
from pytest_lima.ownership.attach import write_state
from pytest_lima.ownership.claims import DELETE, KEEP, Claims
from pytest_lima.ownership.ending import Ending
from pytest_lima.ownership.facts import describe, fits_beside
from pytest_lima.ownership.failures import RemovedError, removed
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.starting import Order
from pytest_lima.ownership.states import States
from pytest_lima.settings import Settings
from pytest_lima.warm.snapshots import Snapshots

How = Callable[[Order, Observer, Ledger], tuple[Boot, Booted]]


class Maker:
    """Makes the instances of a pool."""

    def __init__(
        self,
        ledger: Ledger,
        claims: Claims,
        ending: Ending,
        settings: Settings,
        observer: Observer,
        adopt: Callable[[Order, Instance], None],
        watching: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Make them for a run.

        ``adopt`` gets each instance that nobody else does, for it to be given back;
        ``watching`` is for the time of a start: a reaper watches over this process.
        """
        self._ledger = ledger
        self._claims = claims
        self._ending = ending
        self._settings = settings
        self._observer = observer
        self._adopt = adopt
        self._watching = watching

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
        return self.made(order, starting.start)

    def double(self, order: Order, booted: Booted) -> Instance:
        """Another instance that nobody else gets, in the state that one of ``order`` is in.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        other = replace(order, name=paths.instance_name())
        self._claims.take_alone(other.name, describe(other), other.host.limactl)
        with self._given_up_on_failure(other), self.standing_still(order.name, "cloned"):
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

        return self.boot(order, start)

    @contextmanager
    def standing_still(self, name: str, what: str) -> Iterator[None]:
        """Have an instance alone; who comes for it meanwhile waits until it runs on.

        Raises:
            LimaError: Others use it.
        """
        with self._claims.standing_still(name, what):
            self._ledger.note_phase(name, f"standing still, to be {what}")
            yield

    def made(self, order: Order, how: How) -> Instance:
        """What ``boot`` makes ready, to be held."""
        return Instance(order.host, *self.boot(order, how), States(order, self))

    def boot(self, order: Order, how: How) -> tuple[Boot, Booted]:
        """Boot what is recorded as ours to start.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        with self._given_up_on_failure(order), self._watching():
            boot, booted = how(order, self._observer, self._ledger)
            try:
                write_state(booted)
                self._claims.ready(order.name)
            except BaseException:
                booted.close()
                raise
        return boot, booted

    def _made_alone(self, order: Order) -> Instance:
        instance = self.made(order, starting.start)
        self._adopt(order, instance)
        return instance

    @contextmanager
    def _given_up_on_failure(self, order: Order) -> Iterator[None]:
        try:
            with _system_errors_told(order.name):
                yield
        except BaseException as error:
            told, lost = error if isinstance(error, LimaError) else None, None
            try:
                lost = self._lost(order.name) if told else None
                self._give_up(order, told)
            except (LimaError, OSError):
                pass  # what kept it from booting says more; close() tries again, and tells
            finally:
                self._observer.failed(order.name)
            if lost is not None:
                raise lost from error
            raise

    def _lost(self, name: str) -> RemovedError | None:
        """What is behind any failure of what somebody else has begun to remove."""
        record = self._ledger.read(name)
        if record is not None and record.starter == this_process():
            return None
        return removed(name, record)

    def _give_up(self, order: Order, error: LimaError | None) -> None:
        try:
            decision = self._claims.failed(order.name, error)
        except OSError:
            decision = DELETE  # a full disk, for one: that makes room
        record = self._ledger.read(order.name)
        if record and decision == KEEP and (Path(record.home) / order.name / "lima.yaml").exists():
            self._ending.note_kept(record)
            return
        self._ending.discard_made(order.host.limactl, order.name)


@contextmanager
def _system_errors_told(name: str) -> Iterator[None]:
    """What the system refuses is a failure as any other, not an interrupt of this process alone."""
    try:
        yield
    except OSError as error:
        raise StartError(
            f"{name} could not be made ready: the system refused something",
            seen=str(error),
            remedy=causes.remedy(str(error), "see to the file or limit that this names"),
        ) from error
