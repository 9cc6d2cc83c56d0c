"""The file ``disk`` of an instance: what is on it while the guest's file system is frozen.

Only vz's guests write it, which are those that are cloned; QEMU's are seen on real VMs.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

# Memory, devices, and the fake's own tools, which are links into one guest's root.
_NOT_ON_DISK = {"run", "bin", "sbin", "dev", "proc", "usr", "mnt"}


def save(folder: Path) -> None:
    """Write what lies below the guest's root, to a new file as nobody else may see it change."""
    half = folder / "disk.new"
    with tarfile.open(half, "w") as tar:
        for path in sorted((folder / "guest").iterdir()):
            if path.name not in _NOT_ON_DISK:
                tar.add(path, path.name)
    half.replace(folder / "disk")


def tear(folder: Path) -> None:
    """The guest goes on writing, so that no copy of the disk is whole."""
    half = folder / "disk.new"
    half.write_bytes(b"torn, as its guest runs")
    half.replace(folder / "disk")


def load(folder: Path) -> None:
    """Fill the root of a guest that has none yet; an empty disk is an image's first boot."""
    (folder / "guest").mkdir()
    if (folder / "disk").stat().st_size:
        if not (folder / "disk").stat().st_mode & 0o200:
            raise OSError("Invalid storage device attachment: the disk is read-only")
        with tarfile.open(folder / "disk") as tar:
            # Our own, so all of it; Python 3.11 has `filter=` from its fourth release on only.
            tar.extraction_filter = lambda member, path: member
            tar.extractall(folder / "guest")
