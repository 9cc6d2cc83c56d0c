"""The machines of one run: made when first asked for, shared by spec, ended with certainty."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pytest_lima.boot import Boot
from pytest_lima.errors import CleanupError, LimaError, TemplateError
from pytest_lima.instance import Instance
from pytest_lima.lima import engines, host, paths, template
from pytest_lima.lima.host import Host
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.observer import Observer
from pytest_lima.ownership.ledger import Ledger, Record, this_process
from pytest_lima.settings import DEFAULT_TEMPLATE, Settings, resolve
from pytest_lima.spec import MachineSpec, machine_spec

_STOP_TIMEOUT = 120.0


class LimaFactory(Protocol):
    """Makes further machines, released with the session."""

    def __call__(self, *, name: str | None = None, **spec: Any) -> Instance:
        """Start a machine of its own.

        Args:
            name: Becomes a part of the instance's name and host name: 1 to 24 of ``a-z``,
                ``0-9`` and ``-``.
            **spec: As for the marker: template, vmtype, cpus, memory, disk, provision, mounts,
                networks, set, param, arch, overrides.
        """
        ...


@dataclass(frozen=True)
class Kept:
    """An instance that was left behind on purpose.

    Attributes:
        name: Lima's name of it.
        enter: The command that opens a shell in it.
        delete: The command that removes it.
    """

    name: str
    enter: str
    delete: str


@dataclass
class _Member:
    host: Host
    name: str
    instance: Instance | None = None
    failed: bool = False


class Pool:
    """Machines by what they are.

    Attributes:
        kept: Those that were left behind, for the summary.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        observer: Observer,
        ledger: Ledger | None = None,
    ) -> None:
        self.kept: list[Kept] = []
        self._settings = settings
        self._environ = environ
        self._observer = observer
        self._ledger = ledger or Ledger()
        self._hosts: dict[tuple[str, str | None], Host] = {}
        self._members: dict[str, _Member] = {}
        self._swept = False

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
        """The machine of this spec, started if there is none yet.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        machine, filled = self._fill(spec)
        member = self._members.get(filled.key)
        if member is None or member.instance is None:
            member = self._start(filled.key, machine, filled, spec, paths.instance_name())
        if member.instance is None:
            raise LimaError(f"{member.name} was not started")
        return member.instance

    def create(self, spec: MachineSpec, role: str | None) -> Instance:
        """A machine that nobody else gets.

        Raises:
            LimaError: Whatever kept it from being ready; nothing of it is left.
        """
        machine, filled = self._fill(spec)
        name = paths.instance_name(role)
        member = self._start(name, machine, filled, spec, name)
        if member.instance is None:
            raise LimaError(f"{name} was not started")
        return member.instance

    def mark_failed(self, instance: Instance) -> None:
        """A test that used ``instance`` failed, which counts for ``--lima-keep=on-failure``."""
        for member in self._members.values():
            if member.instance is instance:
                member.failed = True

    def release(self, instance: Instance) -> None:
        """End a machine that no test will use any more.

        Raises:
            CleanupError: Something of it is left; the message says how to remove it.
        """
        for key, member in list(self._members.items()):
            if member.instance is instance:
                self._end(key, member)

    def close(self) -> None:
        """End all machines; one that can't be ended doesn't keep the others.

        Raises:
            ExceptionGroup: Of CleanupError, one for each that is left.
        """
        errors = []
        for key, member in list(self._members.items()):
            try:
                self._end(key, member)
            except LimaError as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("some VMs could not be removed", errors)

    def _fill(self, spec: MachineSpec) -> tuple[Host, FilledTemplate]:
        machine = self.host(spec.vmtype, spec.arch)
        source = spec.template or DEFAULT_TEMPLATE
        text = machine.limactl.template(source)
        filled = template.fill(source, text, spec, vmtype=machine.vmtype, arch=machine.arch)
        return machine, filled

    def _start(
        self, key: str, machine: Host, filled: FilledTemplate, spec: MachineSpec, name: str
    ) -> _Member:
        member = self._members[key] = _Member(machine, name)
        timeout = machine.timeout(self._settings)
        edits = [f"--set={expression}" for expression in spec.set]
        edits += [f"--param={key}={value}" for key, value in spec.param]
        limactl = machine.limactl
        self._sweep()
        self._ledger.write(
            Record(name, str(limactl.home), limactl.path, filled.key, this_process())
        )
        boot = Boot(machine, name, filled, timeout, self._observer)
        try:
            yaml = paths.template_file(limactl.home, name)
            yaml.write_text(filled.text)
            with self._ledger.lock():
                boot.create(yaml, tuple(edits))
            yaml.unlink()
            member.instance = Instance(machine, boot, boot.start())
        except BaseException as error:
            member.failed = isinstance(error, LimaError)
            try:
                self._end(key, member)
            except CleanupError:
                pass  # what kept it from booting says more; close() tries again, and tells
            finally:
                self._observer.failed(name)
            raise
        return member

    def _end(self, key: str, member: _Member) -> None:
        """Disconnect, then keep, stop or delete; a record goes only when the instance has."""
        if member.instance is not None:
            member.instance.disconnect()
        limactl = member.host.limactl
        paths.template_file(limactl.home, member.name).unlink(missing_ok=True)
        made = (limactl.home / member.name / "lima.yaml").exists()
        stop = self._settings.teardown == "stop" and member.instance is not None
        if made and (stop or self._wanted(member)):
            self._ledger.keep(member.name)
            prefix = f"LIMA_HOME={limactl.home} {limactl.path}"
            self.kept.append(Kept(member.name, f"{prefix} shell {member.name}",
                                  f"{prefix} delete --force {member.name}"))  # fmt: skip
            del self._members[key]
            if stop:
                limactl.stop(member.name, _STOP_TIMEOUT)
            return
        limactl.delete(member.name)
        self._ledger.forget(member.name)
        del self._members[key]

    def _wanted(self, member: _Member) -> bool:
        keep = self._settings.keep
        return keep == "always" or (keep == "on-failure" and member.failed)

    def _sweep(self) -> None:
        """Delete what runs that were killed have left, once per run."""
        if self._swept:
            return
        self._swept = True
        with self._ledger.lock():
            for record in self._ledger.orphans():
                try:
                    host.caller(record.limactl, record.home, self._environ).delete(record.name)
                except (CleanupError, OSError) as error:
                    self._observer.warn(f"a VM of a killed run could not be removed: {error}")
                    continue
                self._ledger.forget(record.name)
                self._observer.warn(f"removed {record.name}, which a killed run had left")


@contextmanager
def lima_instance(
    *,
    name: str | None = None,
    engine: str = "none",
    settings: Settings | None = None,
    observer: Observer | None = None,
    **spec: Any,
) -> Iterator[Instance]:
    """A ready VM without pytest, deleted at the end of the ``with`` block.

    Args:
        name: A part of the instance's name.
        engine: ``docker``, ``containerd``, ``both`` or ``none``.
        settings: By default from the ``PYTEST_LIMA_*`` variables.
        observer: Gets the phases of the boot; by default they are logged.
        **spec: As for the marker: template, vmtype, cpus, memory, disk, provision, mounts,
            networks, set, param, arch, overrides.

    Raises:
        LimaError: Whatever kept it from being ready.
    """
    chosen = settings or resolve({}, os.environ, {})
    if engine not in engines.ENGINES:
        raise TemplateError(
            f"engine={engine!r} is not accepted; give one of " + ", ".join(engines.ENGINES)
        )
    asked = replace(machine_spec(**spec), engines=engines.ENGINES[engine])
    default = chosen.templates[0]
    pool = Pool(chosen, os.environ, observer or Observer())
    try:
        yield pool.create(asked.filled(chosen, default, {}), name)
    finally:
        pool.close()
