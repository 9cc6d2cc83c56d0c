"""A record of each instance of ours, written before limactl makes it.

What a killed run leaves behind is found by its record: the next run deletes instances whose
owner is dead. Only instances with a record are ever touched. The one owner of filelock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pytest_lima.errors import HostError

_LOCK_TIMEOUT = 1800.0
_VERSION = 1


@dataclass(frozen=True)
class Owner:
    """A process, told apart from later ones with the same pid.

    Attributes:
        pid: Its id.
        started: When it was started, seconds since the epoch.
        boot_id: The host's boot it belongs to.
    """

    pid: int
    started: float
    boot_id: str

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.boot_id == _boot_id() and _start_time(self.pid) == self.started


@dataclass(frozen=True)
class Record:
    """One instance.

    Attributes:
        name: Lima's name of it.
        home: Its LIMA_HOME.
        limactl: The limactl that made it.
        key: Hash of what it is.
        owner: Who has to delete it.
        keep: It was left behind on purpose.
    """

    name: str
    home: str
    limactl: str
    key: str
    owner: Owner
    keep: bool = False


def this_process() -> Owner:
    """The owner for records of ours."""
    pid = os.getpid()
    return Owner(pid, _start_time(pid) or 0.0, _boot_id())


class Ledger:
    """The records of this user."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use ``folder``, by default one in the user's state directory."""
        self._folder = folder or _state_folder()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold off other runs, for as long as a create or a sweep takes, never for a test.

        Lima makes the SSH key and its configuration of a fresh LIMA_HOME without a lock, so
        two first creates at once fail.

        Raises:
            HostError: Another run holds it for half an hour.
        """
        import filelock

        # thread_local=False: a lock taken in one thread is seen as held in all. The file is
        # never unlinked, else two waiters would lock two files.
        lock = filelock.FileLock(self._folder / "lock", thread_local=False)
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT)
        except filelock.Timeout:
            raise HostError(
                "another pytest-lima run has held the lock for half an hour",
                seen=f"lock file {self._folder / 'lock'}",
                remedy=f"see who has it with: fuser {self._folder / 'lock'}",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def write(self, record: Record) -> None:
        """Store a record; whole or not at all, even if we are killed."""
        path = self._path(record.name)
        half = path.with_suffix(".tmp")
        half.write_text(json.dumps({"version": _VERSION, **asdict(record)}))
        half.replace(path)

    def keep(self, name: str) -> None:
        """Mark an instance as left behind on purpose."""
        for record in self.records():
            if record.name == name:
                self.write(replace(record, keep=True))

    def forget(self, name: str) -> None:
        """Remove the record of an instance that is gone."""
        self._path(name).unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """All records that can be read; one of another version is left alone."""
        found = (_parse(path) for path in sorted(self._folder.glob("*.json")))
        return [record for record in found if record is not None]

    def orphans(self) -> list[Record]:
        """Records of instances that nobody will delete any more."""
        return [one for one in self.records() if not one.keep and not one.owner.alive()]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _parse(path: Path) -> Record | None:
    try:
        data = json.loads(path.read_text())
        if data.pop("version") != _VERSION:
            return None
        return Record(**{**data, "owner": Owner(**data["owner"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _state_folder() -> Path:
    import platformdirs

    return platformdirs.user_state_path("pytest-lima") / "instances"


def _start_time(pid: int) -> float | None:
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))
