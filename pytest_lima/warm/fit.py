"""Which machines can be kept, and what has to be equal for one to be used in place of another."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_lima import realtime
from pytest_lima.guest import hostkeys
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.lima.accel import qemu_binary
from pytest_lima.lima.host import Host
from pytest_lima.lima.template import FilledTemplate

# How a guest is kept and woken up. Raise it when either changes: what older versions of ours
# have kept is not used any more.
RECIPE = 9

_DAY = 86400  # seconds

_PROXIES = ("ftp_proxy", "http_proxy", "https_proxy", "no_proxy", "all_proxy")

_UNFIT = {"additionalDisks": "it has additional disks", "tpm": "it has a TPM"}
_UNFIT_MEMORY = {
    "mounts": "it mounts directories of this host",  # 9p and virtiofs block migration
    "networks": "its networks reach other processes of this host",
    "gpu": "it has a GPU",
}


def unfit_edits(edits: Sequence[str]) -> str | None:
    """Why nothing that is made with these edits can be kept; None if something can."""
    if any("image" in edit for edit in edits):
        return "--lima-set or --lima-param changes the images, so their files aren't known"
    return None


def unfit_machine(folder: Path, config: Mapping[str, Any], keys: HostKeys) -> str | None:
    """Why this running instance can't be kept, not even its disk; None if it can.

    Args:
        folder: The instance's.
        config: Its resolved lima.yaml.
        keys: Its host keys.
    """
    if keys.source == hostkeys.FIRST_CONNECTION:
        return "its image prints no SSH host keys, by which to know it after a reboot"
    for key, problem in _UNFIT.items():
        if config.get(key):
            return problem
    if (config.get("os") or "Linux") != "Linux":
        return "its system is not Linux"
    if config.get("vmType") != "vz" and not (folder / "qmp.sock").is_socket():
        return "its QEMU has no QMP socket"
    if not (folder / "disk").is_file() or (folder / "iso").exists():
        return "its disk is not the only one, or not where Lima 2.1 and later have it"
    return None


def unfit_memory(config: Mapping[str, Any]) -> str | None:
    """Why an instance with this lima.yaml can be kept by its disk alone; None if it needn't."""
    if config.get("vmType") == "vz":
        return "Lima's driver vz can't keep a VM's memory, only QEMU can"
    return next((problem for key, problem in _UNFIT_MEMORY.items() if config.get(key)), None)


def key(host: Host, filled: FilledTemplate) -> str:
    """A hash of everything that decides what a kept machine is and whether it can wake up."""
    environ = host.limactl.env
    decisive = [
        RECIPE,
        filled.key,
        host.version,
        host.vmtype,
        host.arch,
        host.accelerator.name,
        sorted(item for item in environ.items() if item[0].startswith("QEMU_SYSTEM_")),
        _hypervisor(host),
        *_processor(),
        *_image(filled.images),
        *_from_host(filled, environ),
        *_defaults(host.limactl.home / "_config"),
    ]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:32]


def _hypervisor(host: Host) -> list[object]:
    if host.vmtype != "qemu":
        return [platform.platform()]  # it is a part of macOS
    path = host.limactl.env.get("PATH")
    return _identity(Path(shutil.which(qemu_binary(host.arch), path=path) or "").resolve())


def _processor() -> Iterator[object]:
    """What the guest's processor and Lima's default sizes are made from."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        lines = [platform.processor()]
    # Not its MHz, which change while one looks.
    yield [line for line in lines if line.startswith(("vendor", "model", "flags", "Features"))]
    yield os.cpu_count()
    yield os.sysconf("SC_PHYS_PAGES")


def _image(images: Sequence[Mapping[str, Any]]) -> Iterator[object]:
    """The first image, file by file: by digest, by what the file is, or by URL for a day."""
    image = images[0] if images else {}
    for part in (image, image.get("kernel") or {}, image.get("initrd") or {}):
        location = str(part.get("location") or "").removeprefix("file://")
        if part.get("digest"):
            yield [location, str(part["digest"])]
        elif "://" in location:
            # Lima asks at each create whether there is a newer one.
            yield [location, int(realtime.now()) // _DAY]
        elif location:
            yield _identity(Path(location).expanduser())


def _from_host(filled: FilledTemplate, environ: Mapping[str, str]) -> Iterator[object]:
    """What Lima takes from this host into the guest (Lima: pkg/cidata/cidata.go)."""
    if filled.proxied:
        yield sorted(item for item in environ.items() if item[0].lower() in _PROXIES)
    for path in filled.certificates:
        yield _identity(Path(path).expanduser())


def _defaults(folder: Path) -> Iterator[object]:
    """What Lima merges into each instance of this LIMA_HOME."""
    for name in ("default.yaml", "override.yaml", "base.yaml"):
        try:
            yield (folder / name).read_text()
        except OSError:
            yield None


def _identity(path: Path) -> list[object]:
    """Changes when the file does."""
    try:
        found = path.stat()
    except OSError:
        return [str(path), None]
    return [str(path), found.st_size, found.st_mtime_ns, found.st_ino]
