"""Which accelerator really works for QEMU, seen by running a guest of 512 bytes.

Lima takes KVM whenever ``/dev/kvm`` exists (pkg/driver/qemu/qemu.go). That fails where the
device can't be opened, and where it is there but can't run a guest, as on nested and
paravirtual hosts: QEMU aborts or the kernel hangs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_lima.errors import HostError
from pytest_lima.lima import process

_PROBE_TIMEOUT = 3.0
# mov al,0x10; out 0xf4,al; hlt; jmp back: isa-debug-exit ends QEMU with (0x10 << 1) | 1.
_BOOT_SECTOR = bytes.fromhex("b010e6f4f4ebfd").ljust(510, b"\0") + b"\x55\xaa"
_RAN = 33
_TCG_FACTOR = 10.0


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
    return "qemu-system-" + {"armv7l": "arm"}.get(arch, arch)


def choose(wanted: str, arch: str, native: str, environ: Mapping[str, str]) -> Accelerator:
    """The accelerator for QEMU; with ``auto`` software emulation where hardware fails.

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
        problem = _problem(hardware, arch, environ) or ""
    if not problem:
        return Accelerator(hardware)
    if wanted == "auto":
        return Accelerator(
            "tcg", f"{hardware} does not work here, the VM is emulated and slow: {problem}"
        )
    raise HostError(
        f"--lima-accel={wanted} does not work on this machine",
        seen=problem,
        remedy="make the device usable, or take --lima-accel=auto for slow emulation",
    )


def _problem(hardware: str, arch: str, environ: Mapping[str, str]) -> str | None:
    """Why a hardware accelerator doesn't work; None when a guest was seen to run."""
    if hardware == "kvm":
        if not Path("/dev/kvm").exists():
            return "/dev/kvm is missing (no virtualisation, or its kernel module isn't loaded)"
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "/dev/kvm can't be opened by this user (see its group, often kvm)"
    return _run_probe(hardware, arch, environ)


def _run_probe(hardware: str, arch: str, environ: Mapping[str, str]) -> str | None:
    with tempfile.TemporaryDirectory(prefix="pl-accel-") as folder:
        argv = [qemu_binary(arch), "-accel", hardware, "-cpu", "host", "-m", "16",
                "-display", "none", "-nodefaults", "-no-reboot"]  # fmt: skip
        if arch == "x86_64":
            sector = Path(folder, "boot.img")
            sector.write_bytes(_BOOT_SECTOR)
            argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
                     "-drive", f"file={sector},format=raw,if=ide"]  # fmt: skip
            expected = _RAN
        else:
            # No such port elsewhere: creating the CPUs is what fails without virtualisation,
            # and the monitor's end of input, /dev/null, ends QEMU... by our timeout.
            argv += ["-machine", "virt", "-S", "-monitor", "none"]
            expected = None
        try:
            done = process.run(argv, env=environ, timeout=_PROBE_TIMEOUT)
        except OSError as error:
            return f"{argv[0]} can't be run: {error.strerror}"
    if done.returncode == expected:
        return None
    if done.returncode is None:
        return f"a test guest on {hardware} hung"
    said = done.stderr.strip().splitlines()
    return f"a test guest on {hardware} ended with {done.returncode}: {said[-1] if said else ''}"
