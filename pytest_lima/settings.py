"""The one table of options, and the values they resolve to with where each came from.

Every option has a command line flag ``--lima-x-y``, an ini key ``lima_x_y`` and an
environment variable ``PYTEST_LIMA_X_Y``. The command line wins over the environment, that
over the ini file, that over the default. Plain ``LIMA_*`` variables are Lima's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.values import (
    at_least_one,
    count,
    expression,
    gib,
    not_empty,
    one_of,
    pair,
    positive,
    switch,
)

DEFAULT_TEMPLATE = "template:ubuntu-lts"


@dataclass(frozen=True)
class Option:
    """One row of the table.

    Attributes:
        name: As in ``Settings``; flag, ini key and variable are made from it.
        parse: Turns the text into a value, or raises ValueError saying what is accepted.
        default: The value without any source.
        metavar: What ``--help`` shows for the value.
        help: One phrase for ``--help`` and the docs.
        repeatable: The flag may be given several times; ini and variable hold one per line.
        switch: The flag takes no value; ini and variable hold ``on`` or ``off``.
    """

    name: str
    parse: Callable[[str], object]
    default: object
    metavar: str
    help: str
    repeatable: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        """The command line flag."""
        return "--lima-" + self.name.replace("_", "-")

    @property
    def ini(self) -> str:
        """The ini key, which is the ``dest`` of the flag too."""
        return "lima_" + self.name

    @property
    def env(self) -> str:
        """The environment variable."""
        return "PYTEST_LIMA_" + self.name.upper()


def _choice(name: str, help_: str, *choices: str) -> Option:
    """An option whose default is the first of its choices."""
    return Option(name, one_of(*choices), choices[0], "|".join(choices), help_)


OPTIONS: tuple[Option, ...] = (
    _choice("vmtype", "Lima's driver (auto: the template's, else vz on macOS, else qemu)",
            "auto", "vz", "qemu"),
    Option(
        "template",
        not_empty,
        (),
        "NAME|PATH|URL",
        f"Lima template of the VM, default {DEFAULT_TEMPLATE}; several: the suite runs on each",
        repeatable=True,
    ),
    Option("set", expression, (), "EXPR",
           "yq expression applied to the template by limactl, or KEY=VALUE", True),
    Option("param", pair, (), "KEY=VALUE", "Value for a param of the template", True),
    Option("cpus", at_least_one, None, "N", "Number of virtual CPUs"),
    Option("memory", gib, None, "GIB", "Memory, such as 2 or 512MiB"),
    Option("disk", gib, None, "GIB", "Size of the disk, such as 10"),
    Option("mount", not_empty, (), "PATH[:MOUNTPOINT][:w]",
           "Host directory to mount, :w writable; none else is", True),
    Option("arch", not_empty, None, "ARCH",
           "Architecture, such as x86_64 or aarch64, default the template's, else this host's"),
    _choice("accel", "Accelerator for QEMU (auto: one that was seen to work)",
            "auto", "kvm", "hvf", "tcg"),
    _choice("engine", "Container engine to wait for and forward "
            "(auto: what the collected tests' fixtures ask for)",
            "auto", "docker", "containerd", "both", "none"),
    Option("timeout", positive, 600.0, "SECONDS", "Longest time until a VM is ready"),
    Option(
        "timeout_factor",
        positive,
        None,
        "F",
        "Factor on every boot timeout, default 10 without hardware acceleration, else 1",
    ),
    _choice("start", "How a VM starts (auto: from a kept one if there is one, which the first "
            "cold start makes)", "auto", "cold", "warm"),
    _choice("host_keys", "SSH host keys of VMs that wake up (kept: those of the VM they wake up "
            "from; own: new ones for each)", "kept", "own"),
    Option("warm_budget", gib, 10.0, "GIB", "Disk space for kept VMs, which warm starts need"),
    _choice("keep", "Keep the VM after the run", "never", "on-failure", "always"),
    _choice("teardown", "What ends a VM that is not kept", "delete", "stop"),
    _choice("share", "Who shares a VM under pytest-xdist: all workers, or each has its own",
            "run", "worker"),
    Option("max_vms", at_least_one, None, "N", "Most VMs of a run with --lima-share=worker "
           "or --lima-standby, default from free memory and cores"),
    Option("standby", count, 0, "N", "VMs to have ready, standing still, for later tests with "
           "lima_fresh"),
    Option("reuse", switch, False, "on|off",
           "Take a VM of the same spec that another run has left, and leave it for the next",
           switch=True),
    Option("idle", positive, None, "SECONDS", "End a kept VM that nobody has used for so long"),
    Option("recreate", count, 0, "N", "How often a VM that died is made anew for later tests"),
    Option("timings", switch, False, "on|off",
           "Show how long each phase of each start took; junit's properties have it too",
           switch=True),
    _choice("missing", "What to do with tests where Lima can't run", "fail", "skip"),
    Option("home", not_empty, None, "DIR", "LIMA_HOME for our instances; a short path of its own"),
    Option("limactl", not_empty, None, "PATH", "The limactl to run instead of the one on PATH"),
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The resolved options, read-only.

    Attributes:
        memory: GiB, or None for the template's.
        disk: GiB, or None for the template's.
        idle: Seconds without a user after which a kept instance ends.
        timeout: Seconds until an instance must be ready, before ``timeout_factor``.
        warm_budget: GiB.
        sources: For each option, ``"command line"``, ``"environment"``, ``"ini"`` or
            ``"default"``.
    """

    vmtype: str = "auto"
    template: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    param: tuple[str, ...] = ()
    cpus: int | None = None
    memory: float | None = None
    disk: float | None = None
    mount: tuple[str, ...] = ()
    arch: str | None = None
    accel: str = "auto"
    engine: str = "auto"
    timeout: float = 600.0
    timeout_factor: float | None = None
    start: str = "auto"
    host_keys: str = "kept"
    warm_budget: float = 10.0
    keep: str = "never"
    teardown: str = "delete"
    share: str = "run"
    max_vms: int | None = None
    standby: int = 0
    reuse: bool = False
    idle: float | None = None
    recreate: int = 0
    timings: bool = False
    missing: str = "fail"
    home: str | None = None
    limactl: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def templates(self) -> tuple[str, ...]:
        """``template``, or the default one."""
        return self.template or (DEFAULT_TEMPLATE,)

    @property
    def leaves_for_reuse(self) -> bool:
        """Whether what may be reused is left for that: unless ``keep`` was given."""
        return self.reuse and self.sources.get("keep", "default") == "default"

    @property
    def params(self) -> dict[str, str]:
        """``param`` as a mapping."""
        return dict(pair.split("=", 1) for pair in self.param)


def resolve(
    cli: Mapping[str, object], env: Mapping[str, str], ini: Mapping[str, object]
) -> Settings:
    """Merge the sources into Settings.

    Args:
        cli: Values of the flags by option name; None or absent where a flag wasn't given.
        env: The process environment.
        ini: Values of the ini keys by option name; empty where a key isn't set.

    Raises:
        TemplateError: A value that can't be parsed; it names the source and what is accepted.
    """
    resolved: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        for source, raw, where in (
            ("command line", cli.get(option.name), option.flag),
            ("environment", env.get(option.env), option.env),
            ("ini", ini.get(option.name), f"{option.ini} in the ini file"),
        ):
            texts = _texts(raw, repeatable=option.repeatable)
            if texts:
                parsed = tuple(_parse(option, text, where) for text in texts)
                resolved[option.name] = parsed if option.repeatable else parsed[-1]
                sources[option.name] = source
                break
        else:
            resolved[option.name], sources[option.name] = option.default, "default"
    return Settings(**resolved, sources=MappingProxyType(sources))


def _texts(raw: object, *, repeatable: bool) -> list[str]:
    """What a source holds for an option, as the texts to parse; none when it's not set."""
    if raw is None or raw in ("", []):
        return []
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        return [str(item) for item in raw]
    return [line for line in str(raw).splitlines() if line.strip()] if repeatable else [str(raw)]


def _parse(option: Option, text: str, where: str) -> object:
    try:
        return option.parse(text)
    except ValueError as error:
        message = f"{where}: {text!r} is not accepted; give {error}"
    raise TemplateError(message)
