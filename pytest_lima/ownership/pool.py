"""The machines of one run: made when first asked for, shared by spec, ended with certainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_lima.errors import LimaError
from pytest_lima.guest import ssh
from pytest_lima.instance import Instance
from pytest_lima.lima import host, paths, template
from pytest_lima.lima.forks import Origin
from pytest_lima.lima.host import Host
from pytest_lima.lima.identity import this_process
from pytest_lima.observer import Observer
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.ending import Ending, Kept
from pytest_lima.ownership.guard import Guard
from pytest_lima.ownership.joining import Joiner
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.making import Maker
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
                networks, set, param, arch, overrides.
        """
        ...


@dataclass
class _Member:
    order: Order
    instance: Instance
    failed: bool = False


class Pool:
    """Machines by what they are.

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
        self._settings = settings
        self._environ = environ
        self._observer = observer
        self._ledger = ledger or Ledger()
        self._run = run or Run.alone()
        self._guard = Guard(environ)
        claims = Claims(self._ledger, settings, self._run)
        self._ending = Ending(self._ledger, claims, settings, environ, observer.warn)

        def maker_of(observer: Observer) -> Maker:
            return Maker(
                self._ledger, claims, self._ending, settings, observer, self._adopt,
                self._guard.await_ready,
            )  # fmt: skip

        self._maker = maker_of(observer)
        self._joiner = Joiner(self._ledger, claims, self._maker, settings, observer, self._run)
        self._standby = Standby(settings.standby, maker_of, self._joiner.wake, self._adopt,
                                self._discard, observer)  # fmt: skip
        self._sweeper = Sweeper(self._ledger, environ, observer.warn)
        self._hosts: dict[tuple[str, str | None], Host] = {}
        self._members: dict[str, _Member] = {}
        self.clones: list[Instance] = []
        self._swept = False
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
        if key not in self._hosts:
            found = host.inspect(self._settings, self._environ, vmtype=vmtype, arch=arch)
            if found.accelerator.warning:
                self._observer.warn(found.accelerator.warning)
            self._hosts[key] = found
        return self._hosts[key]

    def acquire(self, spec: MachineSpec) -> Instance:
        """The machine of this spec: joined where there is one, else started.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        order = self._order(spec, "")
        key = order.filled.key
        if key not in self._members:
            self._sweep()
            self._members[key] = _Member(*self._joiner.shared(order))
        return self._members[key].instance

    def create(self, spec: MachineSpec, role: str | None) -> Instance:
        """A machine that nobody else gets.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        order = self._order(spec, paths.instance_name(role))
        self._sweep()
        return self._maker.alone(order)

    def create_fresh(self, spec: MachineSpec, wanted: int) -> Instance:
        """A machine that nobody else gets, from the standby if there is one.

        Args:
            spec: Of the machine.
            wanted: How many tests of this process will ask for the same after this one.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        order = self._order(spec, paths.instance_name())
        self._sweep()
        instance = self._standby.take(order) or self._maker.alone(order)
        self._standby.fill(order, wanted)
        return instance

    def renew(self, instance: Instance) -> bool:
        """Give an instance whose VM died a new one, as often as ``--lima-recreate`` says.

        Raises:
            LimaError: Whatever kept the new one from being ready.
        """
        for member in self._members.values():
            if member.instance is instance and self._settings.recreate:
                return self._joiner.renew(member.order, instance)
        return False

    def mark_failed(self, instance: Instance) -> None:
        """A test that used ``instance`` failed, which counts for ``--lima-keep=on-failure``."""
        for member in self._members.values():
            if member.instance is instance:
                member.failed = True

    def release(self, instance: Instance) -> None:
        """Give back a machine that no test of this process will use any more.

        Raises:
            CleanupError: Something of it is left; the message says how to remove it.
        """
        if not self.origin.is_here:
            return
        for key, member in list(self._members.items()):
            if member.instance is instance:
                self._give_back(key)

    def watch_over(self) -> None:
        """Have a reaper for what others of this run have left to us."""
        self._guard.call()

    def close(self) -> None:
        """Give back all machines, and end those of this run if we are the last out.

        One that can't be ended doesn't keep the others.

        Raises:
            ExceptionGroup: Of CleanupError, one for each that is left.
        """
        if not self.origin.is_here:
            return
        errors = self._standby.close()
        for key in list(self._members):
            try:
                self._give_back(key)
            except LimaError as error:
                errors.append(error)
        self._ledger.leave(self._run.id, this_process())
        stays = {member.order.name for member in self._members.values()}
        errors += self._ending.finish_run(stays)
        if errors:
            raise ExceptionGroup("some VMs could not be removed", errors)
        self._guard.dismiss()

    def _adopt(self, order: Order, instance: Instance) -> None:
        self._members[order.name] = _Member(order, instance)
        if order.kept is not None:
            self.clones.append(instance)

    def _discard(self, name: str) -> None:
        record = self._ledger.read(name)
        if record is not None:
            self._ending.discard(record)

    def _give_back(self, key: str) -> None:
        member = self._members[key]
        self._ending.give_back(member.order.name, member.instance, failed=member.failed)
        del self._members[key]

    def _order(self, spec: MachineSpec, name: str) -> Order:
        if not self.origin.is_here:
            raise LimaError(
                "no VM can be started from here in a forked child",
                seen=f"{self.origin} answers for the VMs",
                remedy="start it before the fork; the child may use it",
            )
        machine = self.host(spec.vmtype, spec.arch)
        # Both get ready while limactl reads the template.
        self._guard.call()
        template.prepare()
        ssh.prepare()
        source = spec.template or DEFAULT_TEMPLATE
        text = machine.limactl.template(source)
        emulated = machine.accelerator.name == "tcg"
        filled = template.fill(
            source, text, spec, vmtype=machine.vmtype, arch=machine.arch, emulated=emulated
        )
        settings = self._settings
        return Order(machine, name, spec, filled, machine.timeout(settings), settings.start,
                     settings.warm_budget, own_keys=settings.host_keys == "own")  # fmt: skip

    def _sweep(self) -> None:
        """Before anything is made or joined: the dead's are gone."""
        for name, why in self._sweeper.orphans().items():
            self._observer.warn(f"removed {name}, {why}")
        if not self._swept:
            self._swept = True
            for path, problem in self._ledger.unreadable().items():
                self._observer.warn(f"the record {path} was left alone: {problem}")
