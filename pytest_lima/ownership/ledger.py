"""The ledger: a record of each instance of ours, written before limactl makes it.

It lies in the user's state directory and is shared by all runs on this host. No record is
written or forgotten without the lock on it, and who decides by what a record says holds the
lock from the reading to the writing. It is never held for a boot, a test, a deletion, or a
question that somebody else has to answer. The one owner of filelock and platformdirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_lima import realfiles, realtime
from pytest_lima.errors import HostError
from pytest_lima.lima import locks, paths
from pytest_lima.lima.identity import Identity
from pytest_lima.ownership import leftovers
from pytest_lima.ownership import record as records_
from pytest_lima.ownership.record import ENDING, Record

if TYPE_CHECKING:
    import filelock

_LOCK_TIMEOUT = 60.0
_LOCK_LOOK = 0.05
_CREATE_TIMEOUT = 1800.0
_JOIN_TRIES = 100
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
        self._writer = 0  # the thread that holds the lock
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _no_state("made", self._folder, str(error)) from error
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            problem = "it is not this user's to write, or its file system is read-only"
            raise _no_state("used", self._folder, problem)

    @property
    def folder(self) -> Path:
        """Where the records are."""
        return self._folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold off everybody else, to look at records and to change them.

        Whoever holds it may take it again.

        Raises:
            HostError: Somebody has held it for a minute; the message names the process.
        """
        if self._writer == threading.get_ident():
            yield
            return
        with self._locked("lock", _LOCK_TIMEOUT):
            self._writer = threading.get_ident()
            try:
                yield
            finally:
                self._writer = 0

    @contextmanager
    def first_create(self, home: Path) -> Iterator[None]:
        """Alone in a fresh LIMA_HOME, for as long as ``limactl create`` takes.

        Lima makes its SSH key and its network configuration there without a lock, so two
        first creates at once fail. Later ones go side by side.

        Raises:
            HostError: Another first create takes more than half an hour.
        """
        with ExitStack() as alone:
            if not _is_set_up(home):
                name = "create-" + hashlib.sha256(str(home).encode()).hexdigest()[:16]
                alone.enter_context(self._locked(name, _CREATE_TIMEOUT))
                if _is_set_up(home):
                    alone.close()  # by the one we have waited for
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
        with self.lock():
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
        """The record of an instance; None where there is none, or one that says nothing.

        Raises:
            HostError: There is one, but this process can't read it now.
        """
        try:
            return records_.from_text(realfiles.read_text(self._path(name)))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise HostError(
                f"the record of {name} can't be read",
                seen=str(error),
                remedy="mend what that names; of too many open files, close some: see `ulimit -n`",
            ) from error

    def forget(self, name: str) -> None:
        """Remove the record of an instance that is gone."""
        with self.lock():
            self._path(name).unlink(missing_ok=True)  # the first: see note_phase()
            self._phase(name).unlink(missing_ok=True)
            # Nobody waits for it any more: the instance is gone.
            mend = self._folder / f"mend-{name}"
            for path in (mend, mend.with_suffix(locks.SUFFIX)):
                path.unlink(missing_ok=True)

    def clear_leftovers(self) -> None:
        """Remove what killed processes have left beside the records."""
        with self.lock():
            leftovers.clear(self._folder)
            for run in leftovers.old_runs(self._folder):
                self.members(run)

    def records(self) -> list[Record]:
        """All records that can be read."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            with suppress(OSError, ValueError):
                found.append(records_.from_text(path.read_text(errors="replace")))
        return found

    def unreadable(self) -> dict[Path, str]:
        """The files that can't be read as records, and why; they are left alone."""
        problems = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                records_.from_text(realfiles.read_text(path))
            except ValueError as error:
                problems[path] = str(error)
            except OSError:
                pass  # forgotten just now
        return problems

    def note_phase(self, name: str, text: str) -> None:
        """Let those who wait for an instance see how far it is.

        That is for people, and fails nothing: no boot for want of room, for one.
        """
        with suppress(OSError):
            paths.write_whole(self._phase(name), text)
            # Without the lock, which is not to be waited for here. So we look whether it was
            # forgotten meanwhile: its record goes first.
            if not self._path(name).exists():
                self._phase(name).unlink(missing_ok=True)

    def phase(self, name: str) -> str:
        """How far an instance is that somebody else starts."""
        try:
            return realfiles.read_text(self._phase(name))
        except OSError:
            return ""

    def join(self, run: str, process: Identity) -> None:
        """Note that ``process`` will want VMs of a run.

        Raises:
            OSError: The file system is full.
        """
        file = self._member(run, process)
        for _ in range(_JOIN_TRIES):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The last of the others may just leave, and take the folder away.
            with suppress(FileNotFoundError):
                paths.write_whole(file, json.dumps(asdict(process)))
                return
        raise FileNotFoundError(f"{file.parent} is removed again and again")

    def leave(self, run: str, process: Identity) -> None:
        """Note that it won't any more."""
        file = self._member(run, process)
        file.unlink(missing_ok=True)
        with suppress(OSError):  # others are in it, or it never was
            file.parent.rmdir()

    def members(self, run: str) -> list[Identity]:
        """The living processes that may yet want VMs of a run; the others are forgotten."""
        joined = self.joined(run)
        for one in joined:
            if not (one.alive() or one.elsewhere):
                self.leave(run, one)
        return [one for one in joined if one.alive()]

    def joined(self, run: str) -> list[Identity]:
        """The processes that have not said that they want no more VMs of a run, living or not."""
        try:
            files = list(self._run(run).iterdir())
        except FileNotFoundError:
            return []
        found = []
        for file in files:
            if file.suffix == leftovers.HALF:
                continue
            with suppress(OSError, ValueError, TypeError):  # it left just now
                found.append(Identity(**json.loads(realfiles.read_text(file))))
        return found

    @contextmanager
    def _locked(self, name: str, timeout: float) -> Iterator[None]:
        import filelock

        # thread_local=False: a lock taken in one thread is seen as held in all. The file is
        # never unlinked, else two waiters would lock two files.
        path = self._folder / name
        lock = filelock.FileLock(path, thread_local=False)
        deadline = realtime.monotonic() + timeout
        while not _is_taken(lock):
            if realtime.monotonic() > deadline:
                raise _HeldError(
                    f"another process has held the ledger for {timeout:.0f} s",
                    seen=str(locks.holder_of(path) or f"lock file {path}"),
                    remedy="end or continue that process; it may be suspended",
                )
            realtime.sleep(_LOCK_LOOK)  # as its own wait does, by a clock that tests can stop
        try:
            locks.note_holder(path)
            yield
        finally:
            lock.release()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _phase(self, name: str) -> Path:
        return self._folder / f"{name}.phase"

    def _run(self, run: str) -> Path:
        return self._folder / "runs" / run

    def _member(self, run: str, process: Identity) -> Path:
        """Named by more than the pid: another process may have that by now."""
        return self._run(run) / f"{process.pid}-{process.started}"


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


def _is_taken(lock: filelock.BaseFileLock) -> bool:
    """Take a lock, if nobody has it."""
    import filelock

    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True


def _is_set_up(home: Path) -> bool:
    config = home / "_config"
    return (config / "user.pub").exists() and (config / "networks.yaml").exists()
