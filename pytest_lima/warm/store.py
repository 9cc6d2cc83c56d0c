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
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_lima.warm import golden as records
from pytest_lima.warm.golden import RECORD, Golden

_HALF = ".half-"
_GONE = ".gone-"
_REFUSED = ".refused"


class Store:
    """Finds, publishes and removes kept machines."""

    def __init__(self, home: Path, folder: str = "_golden") -> None:
        """Those in ``folder`` of this LIMA_HOME."""
        self._folder = home / folder

    def find(self, key: str) -> Golden | None:
        """The kept machine of this key; being found counts as being used."""
        golden = records.read(self._folder / key)
        if golden is not None:
            try:
                os.utime(golden.folder / RECORD)
            except FileNotFoundError:
                return None  # removed just now
        return golden

    def all(self) -> list[Golden]:
        """All that are whole, the one used last at the end."""
        found = [records.read(folder) for folder in self._folders() if "." not in folder.name]
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
        with (self._folder / f"{key}.lock").open("ab") as file:
            if waited := not _locked(file.fileno()):
                wait(lambda: _locked(file.fileno()))
            for half in self._folder.glob(f"{key}{_HALF}*"):
                shutil.rmtree(half, ignore_errors=True)  # its maker was killed
            yield waited

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
        whole = replace(golden, folder=folder, info=info)
        records.write(golden)
        for file in half.iterdir():
            file.chmod(0o400)
        self._clear(golden.key)
        half.rename(whole.folder)
        return whole

    def remove(self, golden: Golden) -> None:
        """Remove it at once for those who look for it, then its files.

        One that was kept in its place meanwhile stays.
        """
        if records.read(golden.folder) in (golden, None):
            self._clear(golden.key)

    def _clear(self, key: str) -> None:
        gone = self._folder / f"{key}{_GONE}{secrets.token_hex(4)}"
        try:
            (self._folder / key).rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def refuse(self, key: str, reason: str) -> None:
        """Note that a machine of this key is not to be kept, as that has turned out not to work."""
        (self._folder / f"{key}{_REFUSED}").write_text(reason)

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
            if golden.key != keep and not _in_use(golden):
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
                with (self._folder / f"{key}.lock").open("ab") as file:
                    if _locked(file.fileno()):
                        shutil.rmtree(folder, ignore_errors=True)

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
