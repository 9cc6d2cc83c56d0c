"""Keep a VM by its disk alone, where memory can't be kept, and boot clones of it.

The VM is shut down, and its folder is what a clone of a stopped instance is made from. That is
what ``limactl clone`` does (Lima: pkg/instance/clone.go), done here for two reasons. Its
source has to be an instance of this LIMA_HOME, which would stand in everybody's ``limactl
list`` and could be started, and so changed, by mistake. And it copies each disk whole where
the file system has no copy-on-write; with QEMU an overlay does.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_lima.boot import Boot, Booted
from pytest_lima.errors import LimaError
from pytest_lima.guest import identity
from pytest_lima.guest.readiness import Waiting
from pytest_lima.lima import process
from pytest_lima.lima.limactl import Limactl
from pytest_lima.warm.bake import BINARIES, LAYER, create_overlay
from pytest_lima.warm.store import RECORD, Golden

# A guest that takes longer has not ended cleanly.
_SHUTDOWN_TIMEOUT = 120.0
_COPY_TIMEOUT = 600.0
_INTERVAL = 0.2
_DISK = "disk"
# Emptied and not left out, as Lima finds out by it that the VM is vz's (Lima: NullifyOnClone).
_VZ_IDENTIFIER = "vz-identifier"
# Of one start or one name; Lima makes them again.
_NOT_KEPT = ("ssh.config", "cidata.iso", "protected", "vncdisplay", "vncpassword")
_NOT_KEPT_SUFFIXES = (".pid", ".sock", ".tmp", ".log")


def shut_down(booted: Booted, limactl: Limactl) -> None:
    """Have the guest end by itself, so that its disk is whole, and give up its machine id.

    ``limactl stop`` would also return 0 when it had to kill the VM in the end (Lima:
    pkg/driver/qemu/qemu_driver.go).

    Raises:
        LimaError: It didn't end in time; what is on its disk is not to be used.
    """
    identity.retire(booted.connection)
    booted.close()  # its forwards would go on trying
    waiting = Waiting(time.monotonic() + _SHUTDOWN_TIMEOUT, lambda: None, lambda: None)

    def stopped() -> bool | None:
        info = limactl.inspect(booted.info.name)
        return (info is not None and info.status == "Stopped") or None

    waiting.until("end of the guest's shutdown", stopped, _INTERVAL)


def bake(booted: Booted, folder: Path, key: str, template: str) -> Golden:
    """Keep a VM that has been shut down, by links of its files.

    Args:
        booted: The VM as it was; its instance is to be deleted then and not started again.
        folder: An empty one on the file system of the instance's.
        key: What it will be found by.
        template: What it was made from, for lists.

    Returns:
        The kept machine, to be published.

    Raises:
        OSError: It could not be kept; nothing of it is used.
    """
    instance = booted.info.dir
    vz = booted.info.vmtype == "vz"
    # QEMU's new disks lie on it, so it gets a name of its own; vz's are copies of it.
    layer = _DISK if vz else LAYER + secrets.token_hex(4)
    for file in _lasting(instance):
        if file.name == _VZ_IDENTIFIER:
            (folder / file.name).touch()
        else:
            os.link(file, folder / (layer if file.name == _DISK else file.name))
    kept = identity.Kept("", f"lima-{booted.info.name}")
    return Golden(folder, key, booted.info.name, template, kept, booted.address.user, {},
                  layer, _format(instance / _DISK), booted.booted_as, disk_only=True)  # fmt: skip


def lay_out(golden: Golden, folder: Path, environ: Mapping[str, str]) -> None:
    """Make the folder of a stopped instance from a kept one.

    Raises:
        LimaError: Its disk could not be made.
        OSError: The kept machine is gone, or the file system is full.
    """
    folder.mkdir(mode=0o700)
    copied = []
    for source in golden.folder.iterdir():
        if source.name in BINARIES or source.name.startswith(LAYER):
            os.link(source, folder / source.name)
        elif source.name != RECORD:
            copied.append(source)
    _copy_on_write(copied, folder, environ)
    for file in copied:
        (folder / file.name).chmod(0o600)
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


def _format(disk: Path) -> str:
    with disk.open("rb") as file:
        return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"


def _copy_on_write(files: list[Path], folder: Path, environ: Mapping[str, str]) -> None:
    """Copies that share their blocks where the file system can: APFS, Btrfs, XFS."""
    flags = ["-c"] if sys.platform == "darwin" else ["--reflink=auto", "--sparse=always"]
    argv = ["cp", *flags, *map(str, files), str(folder)]
    done = process.run(argv, env=environ, timeout=_COPY_TIMEOUT)
    if not done.ok:
        raise LimaError("a kept VM could not be copied", ran=" ".join(argv), seen=done.stderr)
