"""Which accelerator really works for QEMU, seen by running a guest of a kilobyte.

Lima takes KVM whenever ``/dev/kvm`` exists (pkg/driver/qemu/qemu.go). That fails where the
device can't be opened, and where it is there but can't run a guest, as on nested and
paravirtual hosts: QEMU aborts, or stays with a guest that has stopped for good. Some of these
hosts run real mode and even simple 64-bit code, which KVM's emulator knows, and nothing of a
distribution's kernel.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_lima.errors import HostError
from pytest_lima.lima import causes, probe_guests, process
from pytest_lima.lima.verdicts import Verdicts

_PROBE_TIMEOUT = 5.0
_ENDED_BY_GUEST = 33  # isa-debug-exit: (0x10 << 1) | 1
_TCG_FACTOR = 10.0
# Lima's, of the architectures that have no test guest of ours.
_MACHINES = {"ppc64le": "pseries", "s390x": "s390-ccw-virtio"}
_ASK_MONITOR = b"""\
{"execute": "qmp_capabilities"}
{"execute": "query-status"}
{"execute": "quit"}
"""


@dataclass(frozen=True)
class Accelerator:
    """What runs the guest's instructions.

    Attributes:
        name: ``kvm``, ``hvf``, ``tcg`` (software, slow) or ``vz``.
        warning: Why it isn't the one that was to be expected; None when it is.
    """

    name: str
    warning: str | None = None

    @property
    def timeout_factor(self) -> float:
        """How much longer everything takes."""
        return _TCG_FACTOR if self.name == "tcg" else 1.0

    @property
    def is_hardware(self) -> bool:
        """Whether QEMU could emulate in its place."""
        return self.name in ("kvm", "hvf")

    def qemu_environ(self, arch: str) -> dict[str, str]:
        """The variables that make Lima start QEMU with this accelerator.

        Lima has no option for it; it splits ``QEMU_SYSTEM_<ARCH>`` as a shell would and
        leaves out its own value where ours is there (pkg/driver/qemu: appendArgsIfNoConflict).
        """
        if self.name != "tcg":
            return {}
        machine = "-machine q35,vmport=off " if arch == "x86_64" else ""
        return {
            f"QEMU_SYSTEM_{arch.upper()}": f"{qemu_binary(arch)} {machine}-accel tcg,thread=multi"
        }


def qemu_binary(arch: str) -> str:
    """Name of QEMU's executable for a Lima architecture."""
    return "qemu-system-" + {"armv7l": "arm", "ppc64le": "ppc64"}.get(arch, arch)


def choose(
    wanted: str, arch: str, native: str, environ: Mapping[str, str], home: Path | None = None
) -> Accelerator:
    """The accelerator for QEMU; with ``auto`` software emulation where hardware fails.

    Args:
        wanted: ``auto``, ``kvm``, ``hvf`` or ``tcg``.
        arch: The guest's.
        native: This machine's.
        environ: QEMU's environment, with the PATH to find it.
        home: LIMA_HOME, where what was seen is remembered until this host is booted again.

    Raises:
        HostError: ``wanted`` was named and doesn't work here.
    """
    hardware = "hvf" if sys.platform == "darwin" else "kvm"
    if wanted == "tcg":
        return Accelerator("tcg")
    if arch != native:
        problem = f"this is a {native} host and the guest is {arch}"
    elif wanted not in ("auto", hardware):
        problem = f"{wanted} doesn't exist on this system"
    else:
        problem = _problem(hardware, arch, environ, home) or ""
    if not problem:
        return Accelerator(hardware)
    if wanted == "auto":
        return emulation(hardware, problem)
    raise HostError(
        f"--lima-accel={wanted} does not work on this machine",
        seen=problem,
        remedy="make the device usable, or take --lima-accel=auto for slow emulation",
    )


def emulation(hardware: str, problem: str) -> Accelerator:
    """Emulation in place of a hardware accelerator that doesn't work."""
    return Accelerator(
        "tcg", f"{hardware} does not work here, the VM is emulated and slow: {problem}"
    )


def note_failure(
    hardware: str, arch: str, environ: Mapping[str, str], home: Path, problem: str
) -> None:
    """Remember that a VM of ours could not run, whatever the test guest could."""
    _verdicts(hardware, arch, environ, home).note(problem, lasting=True)


def _problem(hardware: str, arch: str, environ: Mapping[str, str], home: Path | None) -> str | None:
    """Why a hardware accelerator doesn't work; None when a guest was seen to run."""
    if hardware == "kvm":
        if not Path("/dev/kvm").exists():
            return "/dev/kvm is missing (no virtualisation, or its kernel module isn't loaded)"
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "/dev/kvm can't be opened by this user (see its group, often kvm)"
    if home is None:
        return _run_probe(hardware, arch, environ)
    verdicts = _verdicts(hardware, arch, environ, home)
    known = verdicts.read()
    if known is not None:
        return known.problem
    problem = _run_probe(hardware, arch, environ)
    verdicts.note(problem, lasting=problem is None or _is_lasting(problem))
    return problem


def _verdicts(hardware: str, arch: str, environ: Mapping[str, str], home: Path) -> Verdicts:
    return Verdicts(home, hardware, qemu_binary(arch), environ.get("PATH"))


def _is_lasting(problem: str) -> bool:
    """Whether it will be so until the host is booted again, for all we know.

    A busy device, a host under load or a file of QEMU's that is missing are not.
    """
    busy = "busy" in problem or "Cannot allocate memory" in problem
    return bool(causes.blames_accelerator(problem)) and not busy


def _run_probe(hardware: str, arch: str, environ: Mapping[str, str]) -> str | None:
    with tempfile.TemporaryDirectory(prefix="pl-accel-") as folder:
        argv = [qemu_binary(arch), "-accel", hardware, "-cpu", "host",
                "-m", "16" if arch in ("x86_64", "aarch64") else "256",
                "-display", "none", "-nodefaults", "-no-reboot"]  # fmt: skip
        guest = Path(folder, "guest.bin")
        asked = b""
        if arch == "x86_64":
            guest.write_bytes(probe_guests.X86_64)
            argv += ["-machine", "q35,vmport=off", "-debugcon", "stdio",
                     "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
                     "-kernel", str(guest)]  # fmt: skip
        elif arch == "aarch64":
            guest.write_bytes(probe_guests.AARCH64)
            argv += ["-machine", "virt", "-serial", "stdio", "-kernel", str(guest)]
        else:
            asked = _ASK_MONITOR
            argv += ["-machine", _MACHINES.get(arch, "virt"), "-S", "-qmp", "stdio"]
        try:
            done = process.run(argv, env=environ, timeout=_PROBE_TIMEOUT, given=asked)
        except OSError as error:
            return f"{argv[0]} can't be run: {error.strerror}"
    return None if _has_run(done, arch) else _told(done, hardware, arch)


def _has_run(done: process.Completed, arch: str) -> bool:
    if arch == "x86_64":
        return done.returncode == _ENDED_BY_GUEST
    if arch == "aarch64":
        return done.ok and probe_guests.RAN in done.stdout
    return done.ok and '"status": "prelaunch"' in done.stdout


def _told(done: process.Completed, hardware: str, arch: str) -> str:
    """How a test guest has failed, and at what instruction."""
    how = "hung" if done.returncode is None else f"ended with {done.returncode}"
    reached = done.stdout.split() if arch == "x86_64" else []
    at = f" at {reached[-1]}" if reached else ""
    said = done.stderr.strip().splitlines()
    blamed = causes.blames_accelerator(done.stderr).splitlines()
    words = (blamed or ([] if done.returncode is None else said[-1:]) or [""])[0]
    return f"a test guest on {hardware} {how}{at}" + (f": {words}" if words else "")
