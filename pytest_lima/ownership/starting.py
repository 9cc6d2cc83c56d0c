"""How an instance is started: woken up from a kept one if there is one, else cold, and kept.

Warm start is never in the way: whatever fails about it leads to a cold start with one warning,
unless it was asked for by name.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, suppress

from pytest_lima import realtime
from pytest_lima.boot import Boot
from pytest_lima.errors import (
    AcceleratorError,
    HostError,
    InstanceDiedError,
    LimaError,
    ProvisionError,
    StartError,
)
from pytest_lima.guest.freeze import NotFrozenError
from pytest_lima.guest.identity import NotItselfError, NotKeptError
from pytest_lima.lima import evidence, hostports, logs, paths
from pytest_lima.observer import Observer, Relay
from pytest_lima.ownership import removal
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.run import RunContext
from pytest_lima.ready import ReadyVM
from pytest_lima.request import StartRequest
from pytest_lima.warm import clone, fit, snapshots
from pytest_lima.warm import golden as records
from pytest_lima.warm.bake import bake
from pytest_lima.warm.clone import Clone
from pytest_lima.warm.golden import Golden, RefusedStateError
from pytest_lima.warm.resume import Resume
from pytest_lima.warm.snapshots import Snapshots
from pytest_lima.warm.store import Store
from pytest_lima.warm.turn import await_turn

_GIB = 1024**3
# Of a guest that can't be frozen now, and may be the next time.
_PASSING = re.compile(r"resource busy|no space left|cannot allocate|temporarily", re.IGNORECASE)
_MISHAPS = 2  # so many of them a start survives
# What the first has failed on may be kept anew by another run meanwhile.
_WAKE_TRIES = 2


def start(request: StartRequest, context: RunContext) -> ReadyVM:
    """Make the instance and start it until it is ready, warm or cold.

    Raises:
        LimaError: Whatever kept it from being ready; the caller removes what is left of it.
    """
    hostports.require_free(request.name, request.filled.ssh_port)
    for port, problem in hostports.taken(request.filled.ports).items():
        context.observer.warn(
            f"port {port} of this host can't be forwarded to {request.name}: {problem}"
        )
    return Start(request, context).ready()


def start_anew(request: StartRequest, context: RunContext) -> ReadyVM:
    """Remove what there is of an instance, and start it from nothing under its name.

    Raises:
        LimaError: Whatever kept it from being ready; the caller removes what is left of it.
    """
    removal.remove(request.host.limactl, request.name, context.observer.warn)
    return start(request, context)


def restart(request: StartRequest, context: RunContext) -> ReadyVM:
    """Start an instance that is there and stopped, or dead.

    Raises:
        LimaError: Whatever kept it from being ready.
    """
    folder = request.host.limactl.home / request.name
    removal.halt(folder, context.observer.warn)
    boot = Boot(request, Noted(context.observer, context.ledger))
    logs.clear(folder)
    return boot.start()


class Start:
    """One start of an instance, with nothing there of it."""

    def __init__(self, request: StartRequest, context: RunContext) -> None:
        self._request = request
        self._observer = Noted(context.observer, context.ledger)
        self._ledger = context.ledger
        self._store = Store(request.host.limactl.home)

    def ready(self) -> ReadyVM:
        """Start it in the way that was asked for, and make it ready.

        Raises:
            LimaError: Whatever kept it from being ready; the caller removes what is left of it.
        """
        request = self._request
        if request.state:
            return self._from_its_state()
        if request.mode == "cold":
            return self.cold()
        key = fit.key(request.host, request.filled)
        problem = fit.unfit_edits(request.filled.edits) or self._store.refused(key)
        if problem is None:
            return self._warm_or_cold(key)
        if request.mode == "warm":
            raise self._no_warm_start(problem)
        return self.cold()

    def cold(self) -> ReadyVM:
        """Create and boot it; once more where that fails by chance.

        Raises:
            LimaError: What the last attempt has failed on.
        """
        request, home = self._request, self._request.host.limactl.home
        boot = Boot(request, self._observer)
        yaml = paths.template_file(home, request.name)
        yaml.write_text(request.filled.text)
        with self._ledger.first_create(home):
            boot.create(yaml)
        yaml.unlink()
        for _ in range(_MISHAPS):
            try:
                return boot.start()
            except StartError as error:
                if not evidence.is_mishap(error):
                    raise
                self._observer.warn(f"{request.name} is started again: {error.what}: {error.seen}")
            removal.halt(home / request.name, self._observer.warn)
            logs.clear(home / request.name)
            boot = Boot(request, self._observer)
        return boot.start()

    def wake_up(self, golden: Golden) -> ReadyVM:
        """Wake it up from a kept machine, once more where that fails by chance.

        Raises:
            LimaError: It didn't wake up.
            OSError: The kept machine is gone, or the file system is full.
        """
        for _ in range(_MISHAPS):
            try:
                return self._woken(golden)
            except StartError as error:
                if not evidence.is_mishap(error):
                    raise
            self._delete()
        return self._woken(golden)

    def _woken(self, golden: Golden) -> ReadyVM:
        if golden.disk_only:
            booting = Clone(self._request, self._observer)
            booting.lay_out(golden)
            return booting.start()
        resume = Resume(self._request, self._observer, golden)
        try:
            resume.lay_out()
            return resume.start()
        finally:
            resume.close()

    def _from_its_state(self) -> ReadyVM:
        """Begin in a state that was kept of it, as only that will do."""
        request = self._request
        try:
            return self.wake_up(Snapshots(request.host, request.name).read(request.state))
        except OSError as error:
            raise StartError(
                f"{request.name} could not resume from its saved state",
                seen=str(error),
                remedy=snapshots.remedy(error, request.host),
            ) from error

    def _warm_or_cold(self, key: str) -> ReadyVM:
        store, warm = self._store, self._request.mode == "warm"
        problem = None
        for _ in range(_WAKE_TRIES):
            with ExitStack() as alone:
                try:
                    golden, waited = self._found(key, alone)
                except OSError as error:
                    if warm:
                        raise
                    return self._cold_beside(error)
                if golden is None:
                    self._tell(problem)
                    # Where nothing could be kept, those who waited don't wait for each other too.
                    if store.refused(key) is None and (not waited or warm):
                        return self._cold_and_kept(key)
            if golden is None:
                return self.cold()
            try:
                return self.wake_up(golden)
            except AcceleratorError:
                raise  # a cold start would fail on it too, and what is kept is not at fault
            except (LimaError, OSError) as error:
                failed = error
            there, fault = store.holds(golden), _fault(golden, failed)
            if there and fault:
                with suppress(OSError):
                    store.remove(golden)
            if there and warm:
                raise failed
            self._delete()
            problem = _reason(failed)
            if there and golden.disk_only and isinstance(failed, ProvisionError):
                return self._cold_and_refused(golden, problem)
            if there and not fault:
                return self._cold_beside(failed)
        if warm:
            raise failed
        self._tell(problem)
        return self.cold()

    def _found(self, key: str, alone: ExitStack) -> tuple[Golden | None, bool]:
        """The kept machine, and whether another was waited for who could have made it.

        Without one, ``alone`` holds the right to make it.

        Raises:
            OSError: There may be one, but this process can't look now.
            ReadyTimeoutError: Another process has that right, and doesn't come to an end.
        """
        store, request = self._store, self._request
        golden, waited = store.find(key), False
        if golden is None:
            waited = alone.enter_context(store.building(key, lambda done: await_turn(
                request.name, request.timeout, self._observer, lambda: store.builder(key), done,
            )))  # fmt: skip
            golden = store.find(key)
            if golden is not None:
                alone.close()
        return golden, waited

    def _cold_beside(self, error: LimaError | OSError) -> ReadyVM:
        """A cold start because what is kept can't be used this time; it stays as it is."""
        hint = "the golden image stays; if this goes on, `pytest-lima prune --golden` removes it"
        self._tell(f"{_reason(error)}; {hint}")
        return self.cold()

    def _cold_and_refused(self, golden: Golden, problem: str) -> ReadyVM:
        """A cold start after a clone in which a script failed.

        Where it goes well in the first boot of a machine, at the same time, it can't do it twice.
        """
        self._tell(problem)
        vm = self.cold()
        with suppress(OSError):
            self._store.refuse(golden.key, f"its clone did not become ready: {problem}")
            self._store.remove(golden)
        return vm

    def _cold_and_kept(self, key: str) -> ReadyVM:
        """The cold start that others are spared."""
        vm, begun = self.cold(), realtime.monotonic()
        try:
            self._keep_if_possible(vm, key)
        except BaseException as error:
            vm.close()
            evidence.explain(error, self._request.host.limactl.home, self._request.name)
            raise
        return vm.later(realtime.monotonic() - begun)

    def _keep_if_possible(self, vm: ReadyVM, key: str) -> None:
        warm, name = self._request.mode == "warm", self._request.name
        try:
            problem = self._keep(vm, key)
        except (LimaError, OSError) as error:
            if warm or isinstance(error, InstanceDiedError):
                raise
            self._observer.warn(
                f"no golden image of {name} was saved, so the next start is cold too: "
                f"{_reason(error)}"
            )
        else:
            if problem is not None and warm:
                raise self._no_warm_start(problem)

    def _keep(self, vm: ReadyVM, key: str) -> str | None:
        """Keep it as it runs, with its memory if that can be; why it can't be kept at all."""
        request, config = self._request, vm.info.config
        problem = fit.unfit_machine(vm.info.dir, config, vm.keys)
        if problem is not None:
            return problem
        self._observer.phase(request.name, "saving a golden image")
        by_disk = fit.unfit_memory(config) is not None
        for keep in [clone.bake] if by_disk else [bake, clone.bake]:
            try:
                with self._store.half(key) as folder:
                    self._store.publish(
                        keep(vm, request.host.limactl.env, folder, key, request.source)
                    )
                break
            except NotKeptError:
                pass  # its memory can't be, so its disk
            except NotFrozenError as error:
                if _PASSING.search(_reason(error)):
                    raise
                self._store.refuse(key, _reason(error))
                return _reason(error)
        self._store.shrink(int(request.warm_budget * _GIB), keep=key)
        return None

    def _delete(self) -> None:
        removal.remove(self._request.host.limactl, self._request.name, self._observer.warn)

    def _tell(self, problem: str | None) -> None:
        if problem is not None:
            self._observer.warn(
                f"{self._request.name} could not start warm, so it starts cold: {problem}"
            )

    def _no_warm_start(self, problem: str) -> HostError:
        return HostError(f"no golden image can be made of {self._request.name}", seen=problem,
                         remedy="use --lima-start=auto or cold")  # fmt: skip


def _fault(golden: Golden, error: LimaError | OSError) -> str:
    """What is wrong with a kept machine itself that didn't wake up; empty if that isn't known.

    It is removed for no other fault: not for want of room, of memory or of files, nor because
    limactl, the network or a host that has much to do has kept it from being ready. The same
    machine may wake up the next time.
    """
    if isinstance(error, RefusedStateError | NotItselfError):
        return error.what
    return records.damage(golden)


def _reason(error: BaseException) -> str:
    if not isinstance(error, LimaError):
        return str(error)
    return "; ".join(filter(None, (error.what, error.seen, error.log and f"see {error.log}")))


class Noted(Relay):
    """Passes everything on, and lets waiting processes read the phase in the ledger."""

    def __init__(self, observer: Observer, ledger: Ledger) -> None:
        super().__init__(observer)
        self._ledger = ledger

    def phase(self, instance: str, phase: str) -> None:
        """Pass it on and write it down."""
        self._ledger.note_phase(instance, phase)
        super().phase(instance, phase)
