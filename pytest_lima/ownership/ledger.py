"""The ledger: a record of each instance of ours, written before limactl makes it.

It lies in the user's state directory and is shared by all runs on this host. The lock on it is
held for reading and writing a record, never for a boot, a test or a deletion. The one owner of
filelock and platformdirs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import HostError
from pytest_lima.lima import identity, paths
from pytest_lima.lima.identity import Identity
from pytest_lima.ownership import record as records_
from pytest_lima.ownership.record import ENDING, Record

_LOCK_TIMEOUT = 60.0
_CREATE_TIMEOUT = 1800.0
# Longer than one that has just looked, and found nothing to wait for, takes to end.
_WATCHER_TIMEOUT = 2.0


class _HeldError(HostError):
    """A lock wasn't to be had."""


class Ledger:
    """The records of this user on this host."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use ``folder``, by default one in the user's state directory.

        Raises:
            HostError: It can't be made, or isn't ours to write.
        """
        self._folder = folder or state_folder() / "instances"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _no_state("made", self._folder, str(error)) from error
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            problem = "it is not this user's to write, or its file system is read-only"
            raise _no_state("used", self._folder, problem)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold off everybody else, to look at records and to change them.

        Raises:
            HostError: Somebody has held it for a minute; the message names the process.
        """
        with self._locked("lock", _LOCK_TIMEOUT):
            yield

    @contextmanager
    def first_create(self, home: Path) -> Iterator[None]:
        """Alone in a fresh LIMA_HOME, for as long as ``limactl create`` takes.

        Lima makes its SSH key and its network configuration there without a lock, so two
        first creates at once fail. Later ones go side by side.

        Raises:
            HostError: Another first create takes more than half an hour.
        """
        if _is_set_up(home):
            yield
            return
        name = "create-" + hashlib.sha256(str(home).encode()).hexdigest()[:16]
        with self._locked(name, _CREATE_TIMEOUT):
            yield

    @contextmanager
    def alone_with(self, name: str) -> Iterator[None]:
        """Mend something of one instance that several processes use.

        Raises:
            HostError: Somebody has been at it for a minute.
        """
        with self._locked(f"mend-{name}", _LOCK_TIMEOUT):
            yield

    @contextmanager
    def only_watcher(self) -> Iterator[bool]:
        """Whether we are the one that waits for kept instances to become idle."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locked("idle", _WATCHER_TIMEOUT))
                ours = True
            except _HeldError:
                ours = False
            yield ours

    def write(self, record: Record) -> None:
        """Store a record; whole or not at all, even if we are killed."""
        paths.write_whole(self._path(record.name), records_.to_text(record))

    def mark_ending(self, record: Record, starter: Identity) -> Record:
        """Store that ``starter`` is about to delete an instance, if the disk has room for that.

        Deleting makes some, so it goes on either way.
        """
        ending = replace(record, state=ENDING, starter=starter)
        with suppress(OSError):
            self.write(ending)
        return ending

    def read(self, name: str) -> Record | None:
        """The record of an instance; None where there is none that can be read."""
        try:
            return records_.from_text(self._path(name).read_text(errors="replace"))
        except (OSError, ValueError):
            return None

    def forget(self, name: str) -> None:
        """Remove the record of an instance that is gone."""
        self._path(name).unlink(missing_ok=True)
        self._phase(name).unlink(missing_ok=True)
        # Nobody waits for it any more: the instance is gone, and its name never comes again.
        for suffix in ("", ".holder"):
            (self._folder / f"mend-{name}{suffix}").unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """All records that can be read."""
        found = (self.read(path.stem) for path in sorted(self._folder.glob("*.json")))
        return [record for record in found if record is not None]

    def unreadable(self) -> dict[Path, str]:
        """The files that can't be read as records, and why; they are left alone."""
        problems = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                records_.from_text(path.read_text(errors="replace"))
            except ValueError as error:
                problems[path] = str(error)
            except OSError:
                pass  # forgotten just now
        return problems

    def note_phase(self, name: str, text: str) -> None:
        """Let those who wait for an instance see how far it is."""
        paths.write_whole(self._phase(name), text)

    def phase(self, name: str) -> str:
        """How far an instance is that somebody else starts."""
        try:
            return self._phase(name).read_text()
        except OSError:
            return ""

    def join(self, run: str, process: Identity) -> None:
        """Note that ``process`` will want VMs of a run.

        Raises:
            OSError: The file system is full.
        """
        folder = self._run(run)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.write_whole(folder / str(process.pid), json.dumps(asdict(process)))

    def leave(self, run: str, process: Identity) -> None:
        """Note that it won't any more."""
        folder = self._run(run)
        (folder / str(process.pid)).unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError:
            pass  # others are in it, or it never was

    def members(self, run: str) -> list[Identity]:
        """The living processes that may yet want VMs of a run; the others are forgotten."""
        joined = self.joined(run)
        for one in joined:
            if not one.alive():
                (self._run(run) / str(one.pid)).unlink(missing_ok=True)
        return [one for one in joined if one.alive()]

    def joined(self, run: str) -> list[Identity]:
        """The processes that have not said that they want no more VMs of a run, living or not."""
        try:
            files = list(self._run(run).iterdir())
        except FileNotFoundError:
            return []
        found = []
        for file in files:
            with suppress(OSError, ValueError, TypeError):  # it left just now
                found.append(Identity(**json.loads(file.read_text())))
        return found

    @contextmanager
    def _locked(self, name: str, timeout: float) -> Iterator[None]:
        import filelock

        # thread_local=False: a lock taken in one thread is seen as held in all. The file is
        # never unlinked, else two waiters would lock two files.
        path = self._folder / name
        lock = filelock.FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=timeout)
        except filelock.Timeout:
            raise _HeldError(
                f"another process has held the ledger for {timeout:.0f} s",
                seen=_holder(path) or f"lock file {path}",
                remedy="end or continue that process; it may be suspended",
            ) from None
        try:
            # Beside it, as the lock's own file is emptied by whoever tries to take it. For people
            # alone: a full disk must not keep us from deleting what would make room.
            with suppress(OSError):
                path.with_suffix(".holder").write_text(f"{os.getpid()} {realtime.now():.0f}")
            yield
        finally:
            lock.release()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _phase(self, name: str) -> Path:
        return self._folder / f"{name}.phase"

    def _run(self, run: str) -> Path:
        return self._folder / "runs" / run


def state_folder() -> Path:
    """Where what outlives a run is kept: ``~/.local/state/pytest-lima`` on Linux."""
    import platformdirs

    folder = platformdirs.user_state_path("pytest-lima")
    # All processes have one, from wherever they run; the XDG specification ignores others too.
    return folder if folder.is_absolute() else Path.home() / ".local/state/pytest-lima"


def _no_state(verb: str, folder: Path, problem: str) -> HostError:
    return HostError(
        f"the state directory {folder} can't be {verb}",
        seen=problem,
        remedy="make it possible, or name another with the variable XDG_STATE_HOME",
    )


def _holder(path: Path) -> str:
    """Who has a lock, since when, and what it is."""
    try:
        pid, since = map(int, path.with_suffix(".holder").read_text().split())
    except (OSError, ValueError):
        return ""
    line = " ".join(identity.command_line(pid)) or "which is gone"
    return f"process {pid} for {realtime.now() - since:.0f} s: {line}"


def _is_set_up(home: Path) -> bool:
    config = home / "_config"
    return (config / "user.pub").exists() and (config / "networks.yaml").exists()
