"""Keep a VM by its disk alone, where memory can't be kept, and boot clones of it.

The disk is taken while the VM runs with its file system frozen, so nobody waits for a shutdown
and another boot. A clone is made from it as from a stopped instance's. That is what
``limactl clone`` does (Lima: pkg/instance/clone.go), done here for two reasons. Its
source has to be an instance of this LIMA_HOME, which would stand in everybody's ``limactl
list`` and could be started, and so changed, by mistake. And it copies each disk whole where
the file system has no copy-on-write; with QEMU an overlay does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import LimaError
from pytest_lima.guest import freeze, identity
from pytest_lima.lima import process
from pytest_lima.warm.bake import BINARIES, LAYER, clock_kept, create_overlay, put_disk_aside
from pytest_lima.warm.golden import RECORD, Golden

_COPY_TIMEOUT = 600.0
_DISK = "disk"
# Kept as an empty file, as Lima finds out by it that the VM is vz's (Lima: NullifyOnClone).
_VZ_IDENTIFIER = "vz-identifier"
# Of one start or one name; Lima makes them again.
_NOT_KEPT = (
    _DISK,
    _VZ_IDENTIFIER,
    "ssh.config",
    "cidata.iso",
    "protected",
    "vncdisplay",
    "vncpassword",
)
_NOT_KEPT_SUFFIXES = (".pid", ".sock", ".tmp", ".log")


def bake(
    booted: Booted, environ: Mapping[str, str], folder: Path, key: str, template: str
) -> Golden:
    """Keep the running VM's disk in ``folder``; it runs on whether that goes well or not.

    Args:
        booted: The VM, ready, with nobody using it.
        environ: Environment for qemu-img and cp.
        folder: An empty one on the file system of the instance's.
        key: What it will be found by.
        template: What it was made from, for lists.

    Returns:
        The kept machine, to be published.

    Raises:
        NotFrozenError: Its disk can't be kept as it runs.
        LimaError: It could not be kept; nothing of it is used.
        OSError: The file system is full, for one.
        InstanceDiedError: The VM itself has suffered.
    """
    instance = booted.info.dir
    _carry_over(list(_lasting(instance)), folder, environ)
    if (instance / _VZ_IDENTIFIER).exists():
        (folder / _VZ_IDENTIFIER).touch()
    with clock_kept(booted.connection), freeze.frozen(booted.connection):
        if booted.info.vmtype == "vz":
            _copy_on_write([instance / _DISK], folder, environ, freeze.LONGEST)
            layer, layer_format = _DISK, _format(folder / _DISK)
        else:
            layer, layer_format = put_disk_aside(instance, folder, environ)
    kept = identity.Kept("", f"lima-{booted.info.name}")
    return Golden(folder, key, booted.info.name, template, kept, booted.address.user, {},
                  layer, layer_format, booted.booted_as, disk_only=True)  # fmt: skip


def lay_out(golden: Golden, folder: Path, environ: Mapping[str, str]) -> None:
    """Make the folder of a stopped instance from a kept one.

    Raises:
        LimaError: Its disk could not be made.
        OSError: The kept machine is gone, or the file system is full.
    """
    folder.mkdir(mode=0o700)
    files = [file for file in golden.folder.iterdir() if file.name != RECORD]
    _carry_over(files, folder, environ)
    if golden.layer != _DISK:
        create_overlay(folder / _DISK, golden.layer, golden.layer_format, environ)


class Clone(Boot):
    """The boot of a clone: as a cold one, but what was installed and downloaded is there.

    Lima makes a new instance id at each start. So cloud-init sets the host name and makes new
    host keys, which are pinned from the console as at a cold boot.
    """

    _doing = "booting a clone"

    def lay_out(self, golden: Golden) -> None:
        """Make the instance's folder; raises as the function does."""
        lay_out(golden, self._dir, self._host.limactl.env)


def _lasting(instance: Path) -> Iterator[Path]:
    for file in instance.iterdir():
        if file.is_file() and file.name not in _NOT_KEPT and file.suffix not in _NOT_KEPT_SUFFIXES:
            yield file


def _carry_over(files: list[Path], folder: Path, environ: Mapping[str, str]) -> None:
    """Link what nobody writes, and copy the rest."""
    copied = []
    for file in files:
        if file.name in BINARIES or file.name.startswith(LAYER):
            os.link(file, folder / file.name)
        else:
            copied.append(file)
    _copy_on_write(copied, folder, environ)
    for file in copied:
        (folder / file.name).chmod(0o600)


def _format(disk: Path) -> str:
    with disk.open("rb") as file:
        return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"


def _copy_on_write(
    files: list[Path], folder: Path, environ: Mapping[str, str], timeout: float = _COPY_TIMEOUT
) -> None:
    """Copies that share their blocks where the file system can: APFS, Btrfs, XFS."""
    flags = ["-c"] if sys.platform == "darwin" else ["--reflink=auto", "--sparse=always"]
    argv = ["cp", *flags, *map(str, files), str(folder)]
    done = process.run(argv, env=environ, timeout=timeout)
    if not done.ok:
        raise LimaError("a kept VM could not be copied", ran=" ".join(argv), seen=done.stderr)
