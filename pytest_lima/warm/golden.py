"""A kept machine: its files, and the record that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.guest.identity import Kept
from pytest_lima.lima.info import InstanceInfo

RECORD = "golden.json"


@dataclass(frozen=True)
class Golden:
    """One kept machine, whole and not changed any more.

    Attributes:
        folder: Where its files lie.
        key: Hash of what it is.
        name: The instance it was kept from.
        template: What it was made from, for lists.
        kept: Its token and host name.
        user: The guest's login user.
        host_keys: Base64 of each SSH host key by type.
        layer: Name of the disk file that new disks lie on.
        layer_format: ``qcow2`` or ``raw``.
        booted_as: The instances that it has booted as, in that order.
        disk_only: Whether its memory can't be kept, so that it is booted.
        info: What limactl said of the instance it was kept from; None where that isn't kept.
    """

    folder: Path
    key: str
    name: str
    template: str
    kept: Kept
    user: str
    host_keys: Mapping[str, str]
    layer: str
    layer_format: str
    booted_as: tuple[str, ...]
    disk_only: bool = False
    info: InstanceInfo | None = None

    @property
    def state(self) -> Path:
        """The memory and the devices' state, as QEMU's migration stream."""
        return self.folder / "state"

    @property
    def used(self) -> float:
        """When it was made or last used, seconds since the epoch."""
        return (self.folder / RECORD).stat().st_mtime

    @property
    def size(self) -> int:
        """Bytes on the disk, those that running instances share included."""
        return sum(file.stat().st_blocks * 512 for file in self.folder.iterdir())

    @property
    def in_use(self) -> bool:
        """Whether the disk of an instance lies on it."""
        return (self.folder / self.layer).stat().st_nlink > 1


def write(golden: Golden) -> None:
    """Write the record into the machine's folder, which may be moved after that."""
    record = {**asdict(golden), "folder": "", "made": realtime.now()}
    if golden.info:
        record["info"]["dir"] = ""  # it is where it is found
    (golden.folder / RECORD).write_text(json.dumps(record))


def read(folder: Path) -> Golden | None:
    """The kept machine in a folder; None where that holds none, or another version's."""
    try:
        record = json.loads((folder / RECORD).read_text())
        del record["made"]
        info = record["info"] and InstanceInfo(**{**record["info"], "dir": folder})
        known = {"folder": folder, "kept": Kept(**record["kept"]), "info": info,
                 "booted_as": tuple(record["booted_as"])}  # fmt: skip
        return Golden(**{**record, **known})
    except (OSError, ValueError, KeyError, TypeError):
        return None
