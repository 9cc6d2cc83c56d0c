"""What machine is asked for: the arguments of the marker, the factory and lima_instance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from pytest_lima import hostpaths
from pytest_lima.errors import TemplateError
from pytest_lima.settings import Settings
from pytest_lima.values import expression, gib, located_in, mib

PathText = str | os.PathLike[str]
_VMTYPES = ("auto", "vz", "qemu")


@dataclass(frozen=True)
class MachineSpec:
    """One kind of machine; equal specs can share one VM.

    None or empty means: as the options, the fixtures and the template say.

    Attributes:
        memory: MiB, as an instance has it; users and options give GiB.
        disk: MiB.
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
    memory: int | None = None
    disk: int | None = None
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
        overrides = canonical(hostpaths.located(json.loads(self.overrides), folders))
        return replace(self, template=template, mounts=mounts, overrides=overrides)

    def filled(
        self, settings: Settings, template: PathText, overrides: Mapping[str, Any]
    ) -> MachineSpec:
        """This spec with what it leaves open taken from the options and fixtures.

        Raises:
            TemplateError: A fixture's value that can't be used; it is named.
        """
        return replace(
            self,
            template=self.template or _path("lima_template", template),
            vmtype=self.vmtype or settings.vmtype,
            arch=self.arch or settings.arch,
            cpus=self.cpus or settings.cpus,
            memory=self.memory or _in_mib(settings.memory),
            disk=self.disk or _in_mib(settings.disk),
            mounts=self.mounts or settings.mount,
            set=settings.set + self.set,
            param=tuple(sorted({**settings.params, **dict(self.param)}.items())),
            overrides=canonical(overrides) if self.overrides == "{}" else self.overrides,
        )


class MachineArguments(TypedDict, total=False):
    """The arguments that describe a machine; ``machine_spec`` accepts exactly these.

    For editors and type checkers: ``small: MachineArguments = {"cpus": 1}`` is checked, and can be
    passed to the marker, as in ``pytest.mark.lima(**small)``.
    """

    template: PathText | None
    vmtype: str | None
    arch: str | None
    cpus: int | None
    memory: float | str | None
    disk: float | str | None
    provision: str | Sequence[str]
    mounts: Sequence[PathText]
    networks: Sequence[Mapping[str, Any]]
    set: str | Sequence[str]
    param: Mapping[str, str] | None
    overrides: Mapping[str, Any] | None


def machine_spec(
    *,
    template: PathText | None = None,
    vmtype: str | None = None,
    arch: str | None = None,
    cpus: int | None = None,
    memory: float | str | None = None,
    disk: float | str | None = None,
    provision: str | Sequence[str] = (),
    mounts: Sequence[PathText] = (),
    networks: Sequence[Mapping[str, Any]] = (),
    set: str | Sequence[str] = (),  # noqa: A002 - limactl's own word
    param: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> MachineSpec:
    """Check what a user wrote and make it a spec; ``memory`` and ``disk`` are GiB here.

    Raises:
        TemplateError: A value that can't be used; it names the argument.
        TypeError: An argument that doesn't exist.
    """
    if vmtype is not None and vmtype not in _VMTYPES:
        raise _refused("vmtype", vmtype, "one of " + ", ".join(_VMTYPES))
    if cpus is not None and (not isinstance(cpus, int) or isinstance(cpus, bool) or cpus < 1):
        raise _refused("cpus", cpus, "a whole number, 1 or more")
    if param is not None and not isinstance(param, Mapping):
        raise _refused("param", param, "a mapping of strings")
    if not isinstance(networks, Sequence):
        raise _refused("networks", networks, "a list of mappings")
    return MachineSpec(
        template=_path("template", template),
        vmtype=vmtype,
        arch=_text("arch", arch),
        cpus=cpus,
        memory=_size("memory", memory),
        disk=_size("disk", disk),
        provision=_texts("provision", provision),
        mounts=_texts("mounts", _paths(mounts)),
        networks=tuple(canonical(network) for network in networks),
        set=_expressions(set),
        param=tuple(sorted((str(key), str(value)) for key, value in (param or {}).items())),
        overrides=canonical(overrides or {}),
    )


def require_known(caller: str, given: Iterable[str], own: Iterable[str] = ()) -> None:
    """Refuse arguments that ``machine_spec`` doesn't take, by the name of what the user has called.

    Args:
        caller: That name.
        given: The names of all arguments that aren't its own.
        own: Those that it takes besides.

    Raises:
        TypeError: One isn't known; with the one that was meant.
    """
    known = [*MachineArguments.__annotations__, *own]
    for name in given:
        if name not in known:
            import difflib  # on use: pytest imports this at every start

            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}=?)" if near else ""
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{hint}")


def canonical(value: object) -> str:
    """A mapping as JSON that is the same text for equal mappings; paths in it are texts.

    Raises:
        TemplateError: It isn't a mapping of plain data.
    """
    if not isinstance(value, Mapping):
        raise _refused("overrides or networks", value, "a mapping")
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, default=_fspath)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise _refused("overrides or networks", value, f"plain data ({problem})")


def _fspath(value: object) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else None
    if isinstance(path, str):
        return path
    raise TypeError(f"a value of type {type(value).__name__} isn't")


def _path(name: str, value: object) -> str | None:
    return _text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _paths(value: object) -> object:
    """Those in a list as texts; what else is there stays, to be refused."""
    if not isinstance(value, list | tuple):
        return value
    return [os.fspath(one) if isinstance(one, os.PathLike) else one for one in value]


def _text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise _refused(name, value, "a non-empty string")


def _texts(name: str, value: object) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    if isinstance(items, Sequence) and all(isinstance(item, str) for item in items):
        return tuple(items)
    raise _refused(name, value, "a string or a list of strings")


def _expressions(value: object) -> tuple[str, ...]:
    texts = _texts("set", value)
    try:
        return tuple(expression(text) for text in texts)
    except ValueError as error:
        accepted = str(error)
    raise _refused("set", value, accepted)


def _in_mib(size: float | None) -> int | None:
    return None if size is None else mib(size)


def _size(name: str, value: object) -> int | None:
    """A size that a user gave in GiB, or with its unit, in MiB."""
    if value is None:
        return None
    try:
        return mib(gib(str(value)))
    except ValueError as error:
        accepted = str(error)
    raise _refused(name, value, accepted)


def _refused(name: str, value: object, accepted: str) -> TemplateError:
    return TemplateError(f"{name}={value!r} is not accepted; expected {accepted}")
