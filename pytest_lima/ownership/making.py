"""From a request to an instance of ours: started, ready, and gone again where that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from pytest_lima.boot import Boot
from pytest_lima.errors import LimaError, StartError
from pytest_lima.instance import Instance
from pytest_lima.lima import causes, paths
from pytest_lima.lima.identity import free_memory, this_process
from pytest_lima.machine import Machine
from pytest_lima.observer import Observer
from pytest_lima.ownership import starting
from pytest_lima.ownership.attach import write_state
from pytest_lima.ownership.claims import Claims, Decision, Released
from pytest_lima.ownership.ending import Ending
from pytest_lima.ownership.facts import describe, fits_beside
from pytest_lima.ownership.failures import RemovedError, removed
from pytest_lima.ownership.run import RunContext
from pytest_lima.ready import ReadyVM
from pytest_lima.request import StartRequest
from pytest_lima.warm.snapshots import Snapshots

How = Callable[[StartRequest, RunContext], ReadyVM]


class Maker:
    """Makes the instances of a pool, and owns them for ``Instance``."""

    def __init__(
        self,
        context: RunContext,
        claims: Claims,
        ending: Ending,
        adopt: Callable[[StartRequest, Instance], None],
        watching: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Make them for a run.

        ``adopt`` gets each instance that nobody else does, for it to be given back;
        ``watching`` is for the time of a start: a reaper watches over this process.
        """
        self._context = context
        self._claims = claims
        self._ending = ending
        self._adopt = adopt
        self._watching = watching

    def telling(self, observer: Observer) -> Maker:
        """One that makes them for the same run, and tells ``observer`` of them."""
        context = replace(self._context, observer=observer)
        return Maker(context, self._claims, self._ending, self._adopt, self._watching)

    def alone(self, request: StartRequest) -> Instance:
        """An instance that nobody else gets.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        self._claims.take_alone(request.name, describe(request), request.host.limactl)
        return self._made_alone(request)

    def spare(self, request: StartRequest) -> Instance | None:
        """One that nobody has asked for yet; None where there is no room for it.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        most = self._context.settings.max_vms

        def fits(running: int) -> bool:
            return fits_beside(most, request, running, free_memory())

        if not self._claims.take_spare(request.name, describe(request), request.host.limactl, fits):
            return None
        return self.made(request, starting.start)

    def reboot(self, vm: ReadyVM, timeout: float | None) -> ReadyVM:
        """See ``Boot.reboot``."""
        vm = Boot(vm.request, self._context.observer).reboot(vm, timeout)
        self._context.observer.ready(vm.request.name, vm.seconds)
        return vm

    def reset(self, held: Machine) -> ReadyVM:
        """Begin anew in the first state.

        Raises:
            LimaError: Others use it, or it could not be started again.
        """
        return self._anew(held, held._ready.request, "reset")

    def restore(self, held: Machine, name: str) -> ReadyVM:
        """Begin anew in a state that was kept; the first state stays what it was.

        Raises:
            LimaError: Others use it, there is no such state, or it didn't wake up.
        """
        first = held._ready.request
        kept = Snapshots(first.host, first.name).find(name)
        return replace(self._anew(held, replace(first, state=kept.key), "restored"), request=first)

    def snapshot(self, vm: ReadyVM, name: str) -> None:
        """Keep its state under a name.

        Raises:
            LimaError: Others use it, or it could not be kept.
        """
        with self._standing_still(vm.request.name, "snapshotted"):
            Snapshots(vm.request.host, vm.request.name).take(vm, name)

    def clone(self, vm: ReadyVM) -> Instance:
        """Another instance that nobody else gets, in the state that this one is in.

        Raises:
            LimaError: Others use it, it could not be kept, or the other didn't wake up; nothing
                of that is left.
        """
        request = replace(vm.request, name=paths.instance_name())
        self._claims.take_alone(request.name, describe(request), request.host.limactl)
        with self._given_up_on_failure(request), self._standing_still(vm.request.name, "cloned"):
            kept = Snapshots(request.host, request.name).take_first(vm)
        return self._made_alone(replace(request, state=kept.key))

    @contextmanager
    def _standing_still(self, name: str, what: str) -> Iterator[None]:
        """Have an instance alone; who comes for it meanwhile waits until it runs on.

        Raises:
            LimaError: Others use it.
        """
        with self._claims.standing_still(name, what):
            self._context.ledger.note_phase(name, f"paused, to be {what}")
            yield

    def made(self, request: StartRequest, how: How) -> Instance:
        """What ``boot`` makes ready, to be held."""
        return Instance(self.boot(request, how), self)

    def boot(self, request: StartRequest, how: How) -> ReadyVM:
        """Boot what is recorded as ours to start.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        with self._given_up_on_failure(request), self._watching():
            return self._published(how(request, self._context))

    def _anew(self, held: Machine, request: StartRequest, what: str) -> ReadyVM:
        """From nothing under its name, with whoever holds it let go of what there was."""
        self._claims.begin_anew(request.name, what, describe(request), request.host.limactl)
        with self._given_up_on_failure(request), self._watching():
            held.disconnect()
            return self._published(starting.start_anew(request, self._context))

    def _published(self, vm: ReadyVM) -> ReadyVM:
        """Let others come to it, and tell that it is ready."""
        try:
            write_state(vm)
            self._claims.ready(vm.request.name)
            self._context.observer.ready(vm.request.name, vm.seconds)
        except BaseException:
            vm.close()
            raise
        return vm

    def _made_alone(self, request: StartRequest) -> Instance:
        instance = self.made(request, starting.start)
        self._adopt(request, instance)
        return instance

    @contextmanager
    def _given_up_on_failure(self, request: StartRequest) -> Iterator[None]:
        try:
            with _system_errors_told(request.name):
                yield
        except BaseException as error:
            told, lost = error if isinstance(error, LimaError) else None, None
            try:
                lost = self._lost(request.name) if told else None
                self._give_up(request, told)
            except (LimaError, OSError):
                pass  # what kept it from booting says more; close() tries again, and tells
            finally:
                self._context.observer.failed(request.name)
            if lost is not None:
                raise lost from error
            raise

    def _lost(self, name: str) -> RemovedError | None:
        """What is behind any failure of what somebody else has begun to remove."""
        record = self._context.ledger.read(name)
        if record is not None and record.starter == this_process():
            return None
        return removed(name, record)

    def _give_up(self, request: StartRequest, error: LimaError | None) -> None:
        try:
            released = self._claims.failed(request.name, error)
        except OSError:
            released = Released(Decision.DELETE)  # a full disk, for one: that makes room
        record, folder = released.record, request.host.limactl.home / request.name
        if record and released.decision is Decision.KEEP and (folder / "lima.yaml").exists():
            self._ending.note_kept(record)
        else:
            self._ending.discard_made(request.host.limactl, request.name)


@contextmanager
def _system_errors_told(name: str) -> Iterator[None]:
    """What the system refuses is a failure as any other, not an interrupt of this process alone."""
    try:
        yield
    except OSError as error:
        raise StartError(
            f"{name} could not be made ready: the system refused a call",
            seen=str(error),
            remedy=causes.remedy(str(error), "fix the file or the limit that it names"),
        ) from error
