"""The machines of one run: made when first asked for, shared by spec, ended with certainty."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from pytest_lima.errors import AcceleratorError, LimaError
from pytest_lima.guest import ssh
from pytest_lima.instance import Instance
from pytest_lima.lima import disks, edits, host, libraries, lima_yaml, paths, template
from pytest_lima.lima.forks import Origin
from pytest_lima.lima.host import Host
from pytest_lima.lima.identity import this_process
from pytest_lima.lima.limactl import Limactl
from pytest_lima.observer import Observer
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.ending import Ending, Kept
from pytest_lima.ownership.guard import Guard
from pytest_lima.ownership.joining import Joiner
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.making import Maker
from pytest_lima.ownership.members import Member, Members
from pytest_lima.ownership.reaper import NEEDS
from pytest_lima.ownership.run import Run
from pytest_lima.ownership.standby import Standby
from pytest_lima.ownership.starting import Order
from pytest_lima.ownership.sweep import Sweeper
from pytest_lima.settings import DEFAULT_TEMPLATE, Settings
from pytest_lima.spec import MachineSpec


class LimaFactory(Protocol):
    """Makes further machines, released with the session."""

    def __call__(
        self, *, name: str | None = None, engine: str | None = None, **spec: Any
    ) -> Instance:
        """Start a machine of its own.

        Args:
            name: Becomes a part of the instance's name and host name: 1 to 24 of ``a-z``,
                ``0-9`` and ``-``, with no ``-`` at either end.
            engine: ``docker``, ``containerd``, ``both`` or ``none`` to have in it; by default what
                ``--lima-engine`` says, and none where that is ``auto``.
            **spec: As for the marker: template, vmtype, cpus, memory, disk, provision, mounts,
                networks, set, param, arch, overrides. A relative path starts at the current
                directory, or where pytest was started if there is nothing.
        """
        ...


class Pool:
    """Machines by what they are; several threads may ask for some at once.

    Attributes:
        clones: Those that were made of others with ``Instance.clone``, in that order.
        origin: Whose they are: in a forked child none is made, given back or ended.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        observer: Observer,
        ledger: Ledger | None = None,
        run: Run | None = None,
    ) -> None:
        libraries.load(NEEDS)
        self._settings = settings
        self._environ = environ
        self._observer = observer
        self._ledger = ledger or Ledger()
        self._run = run or Run.alone()
        self._guard = Guard(environ, self._ledger.folder)
        claims = Claims(self._ledger, settings, self._run)
        self._ending = Ending(self._ledger, claims, settings, environ, observer.warn)

        def maker_of(observer: Observer) -> Maker:
            return Maker(
                self._ledger, claims, self._ending, settings, observer, self._adopt,
                self._guard.watching,
            )  # fmt: skip

        self._maker = maker_of(observer)
        self._joiner = Joiner(self._ledger, claims, self._maker, settings, observer, self._run)
        self._standby = Standby(settings.standby, maker_of, self._joiner.wake, self._adopt,
                                self._discard, observer)  # fmt: skip
        self._sweeper = Sweeper(self._ledger, environ, observer.warn)
        self._members = Members()
        self._read: dict[str, str] = {}
        self._told: set[str] = set()
        self.clones: list[Instance] = []
        self._swept = threading.Lock()  # held for good by the first who has swept
        self._host_lock = threading.Lock()  # whoever needs to know waits for who finds out
        self._found: tuple[Limactl, str] | None = None
        self._hosts: dict[tuple[str, str | None], Host] = {}
        self.origin = Origin()

    @property
    def kept(self) -> list[Kept]:
        """What was left behind, for the summary; by the workers too, in their controller."""
        return self._ending.kept_by_run() if self._run.final else self._ending.kept

    def host(self, vmtype: str | None = None, arch: str | None = None) -> Host:
        """What this machine offers, checked once.

        Raises:
            HostError: It can't run the VM.
            LimactlMissingError: There is no limactl.
            LimactlVersionError: It is too old.
        """
        key = (vmtype or self._settings.vmtype, arch or self._settings.arch)
        with self._host_lock:
            if key not in self._hosts:
                here = host.inspect(
                    self._settings, self._environ, vmtype=vmtype, arch=arch, found=self._find()
                )
                if here.accelerator.warning:
                    self._observer.warn(here.accelerator.warning)
                self._hosts[key] = here
            return self._hosts[key]

    def host_for(self, spec: MachineSpec) -> Host:
        """What this machine offers for what a spec and its template ask for.

        Raises:
            HostError: It can't run the VM.
            LimactlMissingError: There is no limactl.
            LimactlVersionError: It is too old.
            TemplateError: The template can't be read.
        """
        source = spec.template or DEFAULT_TEMPLATE
        text = self._read.get(source)  # another thread may take it away
        if text is None:
            with self._host_lock:
                limactl, _ = self._find()
            # Both get ready while limactl reads the template.
            self._guard.call()
            lima_yaml.prepare()
            ssh.prepare()
            text = self._read[source] = limactl.template(source)
        vmtype, arch = template.wishes(source, text, spec)
        return self.host(vmtype or spec.vmtype, arch)

    def acquire(self, spec: MachineSpec) -> Instance:
        """The machine of this spec: joined where there is one, else started.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        order = self._order(spec, "")
        try:
            return self._acquire(order)
        except AcceleratorError as error:
            order = self._emulated(order, error)
        return self._acquire(order)

    def _acquire(self, order: Order) -> Instance:
        key = order.filled.key
        with self._members.turn(key):
            member = self._members.held().get(key)
            if member is None:
                closings = self._members.closings
                self._sweep()
                member = Member(*self._joiner.shared(order))
                self._members.add(key, member)
                if self._members.closings != closings:
                    self._give_back(key)
                    raise _too_late()
            return member.instance

    def create(self, spec: MachineSpec, role: str | None) -> Instance:
        """A machine that nobody else gets.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        order = self._order(spec, paths.instance_name(role))
        closings = self._members.closings
        self._sweep()
        return self._in_time(self._alone(order)[1], closings)

    def create_fresh(self, spec: MachineSpec, wanted: int) -> Instance:
        """A machine that nobody else gets, from the standby if there is one.

        Args:
            spec: Of the machine.
            wanted: How many tests of this process will ask for the same after this one.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        order = self._order(spec, paths.instance_name())
        closings = self._members.closings
        self._sweep()
        instance = self._standby.take(order)
        if instance is None:
            order, instance = self._alone(order)
        self._in_time(instance, closings)
        self._standby.fill(order, wanted)
        return instance

    def renew(self, instance: Instance) -> bool:
        """Give an instance whose VM died a new one, as often as ``--lima-recreate`` says.

        Raises:
            LimaError: Whatever kept the new one from being ready.
        """
        for key, member in self._members.held().items():
            if member.instance is instance and self._settings.recreate:
                with self._members.turn(key):
                    return self._joiner.renew(member.order, instance)
        return False

    def mark_failed(self, instance: Instance) -> None:
        """A test that used ``instance`` failed, which counts for ``--lima-keep=on-failure``."""
        for member in self._members.held().values():
            if member.instance is instance:
                member.failed = True

    def release(self, instance: Instance) -> None:
        """Give back a machine that no test of this process will use any more.

        Raises:
            CleanupError: Something of it is left; the message says how to remove it.
        """
        if not self.origin.is_here:
            return
        for key, member in self._members.held().items():
            if member.instance is instance:
                with self._members.turn(key):
                    self._give_back(key)

    def watch_over(self) -> None:
        """Have a reaper for what others of this run have left to us."""
        self._guard.call()

    def close(self) -> None:
        """Give back all machines, and end those of this run if we are the last out.

        One that can't be ended doesn't keep the others. One that another thread is just starting
        goes as soon as it is there.

        Raises:
            ExceptionGroup: Of CleanupError, one for each that is left.
        """
        if not self.origin.is_here:
            return
        self._members.begin_closing()
        errors = self._standby.close()
        for key in self._members.held():
            try:
                with self._members.turn(key):
                    self._give_back(key)
            except LimaError as error:
                errors.append(error)
        self._ledger.leave(self._run.id, this_process())
        stays = {member.order.name for member in self._members.held().values()}
        errors += self._ending.finish_run(stays)
        if errors:
            raise ExceptionGroup("some VMs could not be removed", errors)
        self._guard.dismiss()

    def _adopt(self, order: Order, instance: Instance) -> None:
        self._members.add(order.name, Member(order, instance))
        if order.kept is not None:
            self.clones.append(instance)

    def _in_time(self, instance: Instance, closings: int) -> Instance:
        """One that came to be ready after the end is given back, as nobody else would do it."""
        if self._members.closings != closings:
            self.release(instance)
            raise _too_late()
        return instance

    def _find(self) -> tuple[Limactl, str]:
        """Limactl and its version, asked once; for the holder of the lock of hosts."""
        if self._found is None:
            self._found = host.find(self._settings, self._environ)
        return self._found

    def _discard(self, name: str) -> None:
        record = self._ledger.read(name)
        if record is not None:
            self._ending.discard(record)

    def _give_back(self, key: str) -> None:
        member = self._members.held().get(key)
        if member is not None:  # else another thread was faster
            self._ending.give_back(member.order.name, member.instance, failed=member.failed)
            self._members.drop(key)

    def _alone(self, order: Order) -> tuple[Order, Instance]:
        """A machine that nobody else gets; the order too, as it was carried out."""
        try:
            return order, self._maker.alone(order)
        except AcceleratorError as error:
            order = self._emulated(order, error)
        return order, self._maker.alone(order)

    def _emulated(self, order: Order, error: AcceleratorError) -> Order:
        """The same machine, emulated as all that follow it, where the accelerator isn't named.

        Raises:
            AcceleratorError: It is, with ``--lima-accel``.
        """
        broken = order.host.accelerator
        if self._settings.accel != "auto" or not broken.is_hardware:
            raise error
        emulating = order.host.without_hardware(error.seen or error.what)
        if emulating.accelerator.warning:
            self._observer.warn(emulating.accelerator.warning)
        with self._host_lock:
            for key, known in self._hosts.items():
                if known.accelerator == broken and known.arch == emulating.arch:
                    self._hosts[key] = emulating
        return self._order(order.spec, order.name)

    def _order(self, spec: MachineSpec, name: str) -> Order:
        if not self.origin.is_here:
            raise LimaError(
                "no VM can be started from here in a forked child",
                seen=f"{self.origin} answers for the VMs",
                remedy="start it before the fork; the child may use it",
            )
        source = spec.template or DEFAULT_TEMPLATE
        machine = self.host_for(spec)
        # It is read again for the next machine.
        text = self._read.pop(source, None) or machine.limactl.template(source)
        emulated = machine.accelerator.name == "tcg"
        keys = machine.limactl.keys(machine.version)
        filled = template.fill(
            source, text, spec, vmtype=machine.vmtype, arch=machine.arch, emulated=emulated,
            keys=keys,
        )  # fmt: skip
        filled = edits.apply(source, filled, spec, self._settings, machine.limactl, keys)
        disks.require(source, filled.disks, machine.limactl.home)
        for note in filled.notes:
            if note not in self._told:
                self._told.add(note)
                self._observer.warn(note)
        settings = self._settings
        return Order(machine, name, spec, filled, machine.timeout(settings), settings.start,
                     settings.warm_budget, own_keys=settings.host_keys == "own")  # fmt: skip

    def _sweep(self) -> None:
        """Before anything is made or joined: the dead's are gone."""
        for name, why in self._sweeper.orphans().items():
            self._observer.warn(f"removed {name}, {why}")
        if self._swept.acquire(blocking=False):
            for path, problem in self._ledger.unreadable().items():
                self._observer.warn(f"the record {path} was left alone: {problem}")


def _too_late() -> LimaError:
    return LimaError(
        "the VM was ready after the end of the run, and was given back",
        seen="another thread had given back all of the run's VMs meanwhile",
        remedy="wait for the threads that start VMs, as the `with` of a ThreadPoolExecutor does",
    )
