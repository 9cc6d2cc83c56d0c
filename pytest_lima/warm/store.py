"""The kept machines of one LIMA_HOME: ``$LIMA_HOME/_golden/<key>``.

Lima takes no folder that begins with ``_`` for an instance (Lima: pkg/store/store.go), so
nothing here can run or leak. It lies inside LIMA_HOME because its files are hard links of
instances' files: whoever uses a disk holds it by a link of their own, so removing a kept
machine takes nothing from anybody, and the file system counts the users.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import HostError
from pytest_lima.lima import locks, paths
from pytest_lima.lima.locks import Holder
from pytest_lima.warm import golden as records
from pytest_lima.warm.golden import RECORD, Golden

_HALF = ".half-"
_GONE = ".gone-"
_REFUSED = ".refused"
_CHANGES_TIMEOUT = 60.0
_LOOK = 0.02


class Store:
    """Finds, publishes and removes kept machines."""

    def __init__(self, home: Path, folder: str = "_golden") -> None:
        """Those in ``folder`` of this LIMA_HOME."""
        self._folder = home / folder

    def find(self, key: str) -> Golden | None:
        """The kept machine of this key; being found counts as being used.

        Raises:
            OSError: There may be one, but this process can't look now.
        """
        golden = records.read(self._folder / key)
        if golden is not None:
            try:
                os.utime(golden.folder / RECORD)
            except FileNotFoundError:
                return None  # removed just now
            except OSError:
                pass  # it is found all the same
        return golden

    def holds(self, golden: Golden) -> bool:
        """Whether it is there, and no other in its place; in doubt, it is."""
        try:
            return records.read(golden.folder) == golden
        except OSError:
            return True

    def all(self) -> list[Golden]:
        """All that are whole, the one used last at the end."""
        found = []
        for folder in self._folders():
            with suppress(OSError):
                found.append(None if "." in folder.name else records.read(folder))
        return sorted(filter(None, found), key=_used)

    @contextmanager
    def building(self, key: str, wait: Callable[[Callable[[], bool]], None]) -> Iterator[bool]:
        """Be the only one who makes the machine of this key; gives whether another was before us.

        Args:
            key: The machine's.
            wait: Gets a function and calls it until it returns True, or raises.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        # The kernel frees it when its holder dies. Never unlinked: two would lock two files.
        with self._lock(key).open("ab") as file:
            if waited := not _locked(file.fileno()):
                wait(lambda: _locked(file.fileno()))
            locks.note_holder(self._lock(key))
            for half in self._folder.glob(f"{key}{_HALF}*"):
                shutil.rmtree(half, ignore_errors=True)  # its maker was killed
            yield waited

    def builder(self, key: str) -> Holder | None:
        """Who makes the machine of this key now; None where that isn't known."""
        return locks.holder_of(self._lock(key))

    @contextmanager
    def half(self, key: str) -> Iterator[Path]:
        """A new folder for the holder of the key's lock to fill; gone if it isn't published."""
        folder = self._folder / f"{key}{_HALF}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700, parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, golden: Golden) -> Golden:
        """Make a filled folder the machine of its key: whole or not at all."""
        half = golden.folder
        folder = self._folder / golden.key
        info = golden.info and replace(golden.info, dir=folder)
        golden = records.sealed(golden)
        whole = replace(golden, folder=folder, info=info)
        records.write(golden)
        for file in half.iterdir():
            file.chmod(0o400)
        with self._changing():
            gone = self._put_aside(golden.key)
            try:
                half.rename(folder)
            except OSError:
                if gone is not None:
                    gone.rename(folder)
                raise
        _delete(gone)
        return whole

    def remove(self, golden: Golden) -> None:
        """Remove it at once for those who look for it, then its files.

        One that was kept in its place meanwhile stays.
        """
        with self._changing():
            ours = records.read(golden.folder) in (golden, None)
            gone = self._put_aside(golden.key) if ours else None
        _delete(gone)

    def _put_aside(self, key: str) -> Path | None:
        """Where the machine of this key is now, to be deleted; None if there was none."""
        gone = self._folder / f"{key}{_GONE}{secrets.token_hex(4)}"
        try:
            return (self._folder / key).rename(gone)
        except FileNotFoundError:
            return None

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the only one who changes which machines there are; for as long as a rename takes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            deadline = realtime.monotonic() + _CHANGES_TIMEOUT
            while not _locked_or_unlockable(descriptor):
                if realtime.monotonic() > deadline:
                    raise HostError(
                        f"another process has been changing {self._folder} for "
                        f"{_CHANGES_TIMEOUT:.0f} s",
                        remedy=f"see with `fuser {self._folder}` which; it may be suspended",
                    )
                realtime.sleep(_LOOK)
            yield
        finally:
            os.close(descriptor)

    def refuse(self, key: str, reason: str) -> None:
        """Note that a machine of this key is not to be kept, as that has turned out not to work."""
        paths.write_whole(self._folder / f"{key}{_REFUSED}", reason)

    def refused(self, key: str) -> str | None:
        """Why a machine of this key is not to be kept; None if nothing speaks against it."""
        try:
            return (self._folder / f"{key}{_REFUSED}").read_text()
        except FileNotFoundError:
            return None

    def forgive(self) -> None:
        """Forget all that was refused."""
        for file in self._folder.glob(f"*{_REFUSED}"):
            file.unlink(missing_ok=True)

    def shrink(self, budget: int, keep: str = "") -> list[Golden]:
        """Remove what was used longest ago until ``budget`` bytes hold the rest.

        What an instance uses stays, and so does the one of the key ``keep``.

        Returns:
            What was removed.
        """
        self._sweep()
        found = self.all()
        total = sum(map(_size, found))
        removed = []
        for golden in found:
            if total <= budget:
                break
            if golden.key != keep and not _in_use(golden) and self.holds(golden):
                total -= _size(golden)
                self.remove(golden)
                removed.append(golden)
        return removed

    def _sweep(self) -> None:
        """Remove what killed runs have left: halves that nobody is making any more."""
        for folder in self._folders():
            key, _, rest = folder.name.partition(".")
            if rest.startswith(_GONE[1:]):
                shutil.rmtree(folder, ignore_errors=True)
            elif rest.startswith(_HALF[1:]):
                with self._lock(key).open("ab") as file:
                    if _locked(file.fileno()):
                        shutil.rmtree(folder, ignore_errors=True)

    def _lock(self, key: str) -> Path:
        return self._folder / f"{key}.lock"

    def _folders(self) -> list[Path]:
        try:
            return [path for path in sorted(self._folder.iterdir()) if path.is_dir()]
        except FileNotFoundError:
            return []


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked_or_unlockable(descriptor: int) -> bool:
    """As ``_locked``; a network file system that locks no folders is taken as it is."""
    try:
        return _locked(descriptor)
    except OSError:
        return True


def _delete(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


# A parallel run may remove one between our looking and our asking.
def _used(golden: Golden) -> float:
    try:
        return golden.used
    except FileNotFoundError:
        return 0.0


def _size(golden: Golden) -> int:
    try:
        return golden.size
    except FileNotFoundError:
        return 0


def _in_use(golden: Golden) -> bool:
    try:
        return golden.in_use
    except FileNotFoundError:
        return False
