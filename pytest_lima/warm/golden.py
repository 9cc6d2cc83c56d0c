"""A kept machine: its files, and the record that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import StartError
from pytest_lima.guest.identity import Kept
from pytest_lima.lima.info import InstanceInfo

RECORD = "golden.json"


class RefusedStateError(StartError):
    """QEMU has read a kept machine's memory, and can't make a running VM of it."""


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
        cold_seconds: How long that took to boot; None where that isn't known.
        files: Size and time of change (ns) of each file, to tell whether it was damaged since.
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
    cold_seconds: float | None = None
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)

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


def sealed(golden: Golden) -> Golden:
    """With what its files are now that all of them are there; see ``damage``."""
    found = {file.name: file.stat() for file in golden.folder.iterdir() if file.name != RECORD}
    files = {name: (one.st_size, one.st_mtime_ns) for name, one in found.items()}
    return replace(golden, files=files)


def damage(golden: Golden) -> str:
    """What is missing of a machine that was kept whole, or has changed; empty for nothing.

    Of the files' contents their first bytes alone; the rest QEMU or the guest sees.
    """
    for name, kept in golden.files.items():
        try:
            found = (golden.folder / name).stat()
            head = _head(golden.folder / name)
        except FileNotFoundError:
            return f"its file {name} is missing"
        except OSError:
            continue  # says nothing of the file
        if (found.st_size, found.st_mtime_ns) != kept:
            return f"its file {name} has changed since it was kept"
        if head != _expected_head(golden, name, head):
            return f"its file {name} is no such file as QEMU writes"
    return ""


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4)


def _expected_head(golden: Golden, name: str, head: bytes) -> bytes:
    if name == golden.layer and golden.layer_format == "qcow2":
        return b"QFI\xfb"
    return b"QEVM" if name == golden.state.name else head


def write(golden: Golden) -> None:
    """Write the record into the machine's folder, which may be moved after that."""
    record = {**asdict(golden), "folder": "", "made": realtime.now()}
    if golden.info:
        record["info"]["dir"] = ""  # it is where it is found
    (golden.folder / RECORD).write_text(json.dumps(record))


def read(folder: Path) -> Golden | None:
    """The kept machine in a folder; None where that holds none, or another version's.

    Raises:
        OSError: There may be one, but this process can't look now.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        del record["made"]
        info = record["info"] and InstanceInfo(**{**record["info"], "dir": folder})
        files = {name: tuple(kept) for name, kept in record["files"].items()}
        known = {"folder": folder, "kept": Kept(**record["kept"]), "info": info,
                 "booted_as": tuple(record["booted_as"]), "files": files}  # fmt: skip
        return Golden(**{**record, **known})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
