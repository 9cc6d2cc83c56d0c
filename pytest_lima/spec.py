"""What machine is asked for: the arguments of the marker, the factory and lima_instance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.settings import Settings
from pytest_lima.values import expression, gib, located_in

_VMTYPES = ("auto", "vz", "qemu")


@dataclass(frozen=True)
class MachineSpec:
    """One kind of machine; equal specs can share one VM.

    None or empty means: as the options, the fixtures and the template say.

    Attributes:
        memory: GiB.
        disk: GiB.
        provision: Shell scripts run as root in the guest, after the template's own.
        mounts: Host directories, as ``PATH[:MOUNTPOINT][:w]``, ``:w`` for writable.
        networks: Lima's ``networks`` entries, as canonical JSON.
        set: yq expressions for ``limactl create --set``.
        param: Values for the template's params.
        overrides: Canonical JSON of a mapping that is deep-merged into the template.
        engines: Container engines that have to answer before the machine is ready.
    """

    template: str | None = None
    vmtype: str | None = None
    arch: str | None = None
    cpus: int | None = None
    memory: float | None = None
    disk: float | None = None
    provision: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    param: tuple[tuple[str, str], ...] = ()
    overrides: str = "{}"
    engines: frozenset[str] = frozenset()

    def located(self, *folders: Path | str) -> MachineSpec:
        """This spec with relative paths in the first of the folders that has them; "" is here."""
        template = self.template and located_in("template", self.template, folders)
        mounts = tuple(located_in("mount", text, folders) for text in self.mounts)
        return replace(self, template=template, mounts=mounts)

    def filled(
        self, settings: Settings, template: str, overrides: Mapping[str, Any]
    ) -> MachineSpec:
        """This spec with what it leaves open taken from the options and fixtures."""
        return replace(
            self,
            template=self.template or template,
            vmtype=self.vmtype or settings.vmtype,
            arch=self.arch or settings.arch,
            cpus=self.cpus or settings.cpus,
            memory=self.memory or settings.memory,
            disk=self.disk or settings.disk,
            mounts=self.mounts or settings.mount,
            set=settings.set + self.set,
            param=tuple(sorted({**settings.params, **dict(self.param)}.items())),
            overrides=canonical(overrides) if self.overrides == "{}" else self.overrides,
        )


def machine_spec(
    *,
    template: str | None = None,
    vmtype: str | None = None,
    arch: str | None = None,
    cpus: int | None = None,
    memory: float | str | None = None,
    disk: float | str | None = None,
    provision: str | Sequence[str] = (),
    mounts: Sequence[str] = (),
    networks: Sequence[Mapping[str, Any]] = (),
    set: str | Sequence[str] = (),  # noqa: A002 - limactl's own word
    param: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> MachineSpec:
    """Check what a user wrote and make it a spec.

    Raises:
        TemplateError: A value that can't be used; it names the argument.
        TypeError: An argument that doesn't exist.
    """
    if vmtype is not None and vmtype not in _VMTYPES:
        raise _refused("vmtype", vmtype, "one of " + ", ".join(_VMTYPES))
    if cpus is not None and (not isinstance(cpus, int) or isinstance(cpus, bool) or cpus < 1):
        raise _refused("cpus", cpus, "a whole number from 1")
    if param is not None and not isinstance(param, Mapping):
        raise _refused("param", param, "a mapping of texts")
    if not isinstance(networks, Sequence):
        raise _refused("networks", networks, "a list of mappings")
    return MachineSpec(
        template=_text("template", template),
        vmtype=vmtype,
        arch=_text("arch", arch),
        cpus=cpus,
        memory=_size("memory", memory),
        disk=_size("disk", disk),
        provision=_texts("provision", provision),
        mounts=_texts("mounts", mounts),
        networks=tuple(canonical(network) for network in networks),
        set=_expressions(set),
        param=tuple(sorted((str(key), str(value)) for key, value in (param or {}).items())),
        overrides=canonical(overrides or {}),
    )


def canonical(value: object) -> str:
    """A mapping as JSON that is the same text for equal mappings.

    Raises:
        TemplateError: It isn't a mapping of plain data.
    """
    if not isinstance(value, Mapping):
        raise _refused("overrides or networks", value, "a mapping")
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise _refused("overrides or networks", value, f"plain data ({problem})")


def _text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise _refused(name, value, "a text that is not empty")


def _texts(name: str, value: object) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    if isinstance(items, Sequence) and all(isinstance(item, str) for item in items):
        return tuple(items)
    raise _refused(name, value, "a text or a list of texts")


def _expressions(value: object) -> tuple[str, ...]:
    texts = _texts("set", value)
    try:
        return tuple(expression(text) for text in texts)
    except ValueError as error:
        accepted = str(error)
    raise _refused("set", value, accepted)


def _size(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        return gib(str(value))
    except ValueError as error:
        accepted = str(error)
    raise _refused(name, value, accepted)


def _refused(name: str, value: object, accepted: str) -> TemplateError:
    return TemplateError(f"{name}={value!r} is not accepted; give {accepted}")
