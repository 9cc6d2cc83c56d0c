"""What this machine offers, found once per run, with the remedy where it falls short."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_lima.errors import HostError
from pytest_lima.lima import accel, limactl, paths, verdicts
from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.limactl import Limactl
from pytest_lima.settings import Settings

_ARCHES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True)
class Host:
    """A machine that can run VMs.

    Attributes:
        limactl: Ready to call, with our LIMA_HOME.
        version: limactl's.
        vmtype: ``vz`` or ``qemu``, never ``auto``.
        arch: The guest's, in Lima's words: ``x86_64``, ``aarch64``, …
        accelerator: What will run the guest.
    """

    limactl: Limactl
    version: str
    vmtype: str
    arch: str
    accelerator: Accelerator

    def timeout(self, settings: Settings) -> float:
        """Seconds until an instance must be ready."""
        return settings.timeout * (settings.timeout_factor or self.accelerator.timeout_factor)

    def without_hardware(self, problem: str) -> Host:
        """The same with emulation, now and in later runs, as the accelerator has failed a VM.

        Args:
            problem: What QEMU said of it.
        """
        lima, hardware = self.limactl, self.accelerator.name
        problem = (
            f"{problem.splitlines()[0]}; it is tried again when this host was booted anew, or "
            f"{verdicts.file_in(lima.home)} is removed"
        )
        accel.note_failure(hardware, self.arch, lima.env, lima.home, problem)
        emulation = accel.emulation(hardware, problem)
        extra = emulation.qemu_environ(self.arch)
        return replace(
            self, limactl=Limactl(lima.path, lima.home, lima.env, extra), accelerator=emulation
        )


def native_arch() -> str:
    """This machine's architecture in Lima's words."""
    machine = platform.machine().lower()
    return _ARCHES.get(machine, machine)


def find(settings: Settings, environ: Mapping[str, str]) -> tuple[Limactl, str]:
    """A limactl that can read templates, whatever is to run the guest, and its version.

    Raises:
        HostError: Root, or a path that is too long.
        LimactlMissingError: No limactl.
        LimactlVersionError: Too old a limactl.
    """
    if os.geteuid() == 0:
        raise HostError(
            "limactl refuses to run as root",
            seen="this process runs as root",
            remedy="run pytest as an ordinary user",
        )
    executable = limactl.find(settings.limactl, environ.get("PATH"))
    home = paths.lima_home(settings.home)
    caller = Limactl(executable, home, environ, {})
    return caller, caller.version()


def inspect(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    vmtype: str | None = None,
    arch: str | None = None,
    found: tuple[Limactl, str] | None = None,
) -> Host:
    """Check everything a VM needs from this machine, cheapest first.

    Args:
        settings: The run's.
        environ: The process environment.
        vmtype: A spec's or template's own, before the settings'.
        arch: The same.
        found: What ``find`` has returned; it is called where that isn't given.

    Raises:
        HostError: Root, no QEMU, no such accelerator, a path that is too long.
        LimactlMissingError: No limactl.
        LimactlVersionError: Too old a limactl.
    """
    reader, version = found or find(settings, environ)
    native = native_arch()
    guest_arch = _ARCHES.get(arch or settings.arch or native, arch or settings.arch or native)
    kind = _vmtype(vmtype or settings.vmtype, guest_arch, native)
    if kind == "vz":
        accelerator = Accelerator("vz")
    else:
        _require_qemu(guest_arch, environ)
        accelerator = accel.choose(settings.accel, guest_arch, native, environ, reader.home)
    caller = Limactl(reader.path, reader.home, environ, accelerator.qemu_environ(guest_arch))
    return Host(caller, version, kind, guest_arch, accelerator)


def _vmtype(wanted: str, arch: str, native: str) -> str:
    """Lima's own default: vz on macOS for the native architecture, else qemu."""
    if wanted == "auto":
        return "vz" if sys.platform == "darwin" and arch == native else "qemu"
    if wanted not in ("vz", "qemu"):
        raise HostError(
            f"vmType {wanted} is none that pytest-lima can run",
            seen="it runs vz and qemu",
            remedy="take --lima-vmtype=qemu, which goes before the template's, or another template",
        )
    if wanted == "vz" and sys.platform != "darwin":
        raise HostError(
            "vmtype vz exists on macOS only",
            seen=f"this is {sys.platform}",
            remedy="take --lima-vmtype=qemu, which goes before the template's",
        )
    return wanted


def _require_qemu(arch: str, environ: Mapping[str, str]) -> None:
    for tool in (accel.qemu_binary(arch), "qemu-img"):
        if shutil.which(tool, path=environ.get("PATH")) is None:
            raise HostError(
                f"{tool} was not found",
                seen=f"PATH={environ.get('PATH')}",
                remedy="install QEMU (qemu-system-x86 and qemu-utils on Debian and Ubuntu, "
                "qemu with Homebrew)",
            )


def caller(executable: str, home: str, environ: Mapping[str, str]) -> Limactl:
    """A limactl for an instance that another run has made."""
    return Limactl(executable, Path(home), environ, {})
