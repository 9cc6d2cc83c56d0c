"""Giving an instance back: to others who use it, to be kept, or to be deleted."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_lima.errors import CleanupError, LimaError
from pytest_lima.instance import Instance
from pytest_lima.lima import host
from pytest_lima.lima.limactl import Limactl
from pytest_lima.ownership import removal
from pytest_lima.ownership.claims import DELETE, SHARED, STOP, Claims
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import Record
from pytest_lima.ownership.sweep import Sweeper, Warn
from pytest_lima.settings import Settings

_STOP_TIMEOUT = 120.0


@dataclass(frozen=True)
class Kept:
    """An instance that was left behind on purpose.

    Attributes:
        name: Lima's name of it.
        enter: The command that opens a shell in it.
        delete: The command that removes it.
        idle: Seconds without a user after which it ends by itself; None: never.
        host: Where it is, if not here.
    """

    name: str
    enter: str
    delete: str
    idle: float | None = None
    host: str = ""


class Ending:
    """What happens to an instance when this process needs it no more.

    Attributes:
        kept: Those that were left behind, for the summary.
    """

    def __init__(
        self,
        ledger: Ledger,
        claims: Claims,
        settings: Settings,
        environ: Mapping[str, str],
        warn: Warn,
    ) -> None:
        self._lock = threading.Lock()  # of the list that follows
        self.kept: list[Kept] = []
        self._ledger = ledger
        self._claims = claims
        self._settings = settings
        self._environ = environ
        self._warn = warn
        self._sweeper = Sweeper(ledger, environ, warn)

    def give_back(self, name: str, instance: Instance | None, *, failed: bool) -> None:
        """Release an instance, and do what is ours to do then.

        Raises:
            LimaError: Something of it is left, and so is its record.
        """
        with _told_of(name):
            self._give_back(name, instance, failed=failed)

    def _give_back(self, name: str, instance: Instance | None, *, failed: bool) -> None:
        decision = self._claims.release(name, failed=failed)
        record = self._ledger.read(name)
        if decision == SHARED or record is None:
            if instance is not None:
                instance.detach()
        elif decision == DELETE:
            if instance is not None:
                instance.disconnect()
            self._sweeper.end(record)
        else:
            if decision == STOP:
                self._stop(record, instance)
            elif instance is not None:
                instance.detach()
            removal.remove_snapshots(Path(record.home), name)  # nobody else may restore them
            self.note_kept(record)

    def discard(self, record: Record) -> None:
        """Remove what is left of an instance that could not be started.

        Raises:
            LimaError: Something of it is left.
        """
        self.discard_made(host.caller(record.limactl, record.home, self._environ), record.name)

    def discard_made(self, limactl: Limactl, name: str) -> None:
        """The same of one that this process has made, whether it still has a record or not."""
        with _told_of(name):
            removal.remove_for_good(limactl, name, self._warn)
            self._claims.settle(name)

    def finish_run(self, stays: Collection[str] = ()) -> list[LimaError]:
        """Of this run, keep or delete what nobody holds and nobody will want any more.

        Args:
            stays: The names of those that could not be given back just now.

        Returns:
            What kept some from that.
        """
        problems = []
        for record in self._claims.of_run():
            if not record.keep and record.name not in stays:
                try:
                    self.give_back(record.name, None, failed=False)
                except LimaError as error:
                    problems.append(error)
        return problems

    def kept_by_run(self) -> list[Kept]:
        """What this run's processes have left behind, whichever of them did."""
        return [self._as_kept(record) for record in self._claims.of_run() if record.keep]

    def note_kept(self, record: Record) -> None:
        """For the summary."""
        kept = self._as_kept(record)
        with self._lock:
            self.kept = [*(one for one in self.kept if one.name != kept.name), kept]

    def _as_kept(self, record: Record) -> Kept:
        prefix = f"LIMA_HOME={shlex.quote(record.home)} {shlex.quote(record.limactl)}"
        return Kept(record.name, f"{prefix} shell {record.name}",
                    f"{prefix} delete --force {record.name}", record.idle)  # fmt: skip

    def _stop(self, record: Record, instance: Instance | None) -> None:
        try:
            self._ledger.note_phase(record.name, "stopping")
            if instance is not None:
                instance.disconnect()
            limactl = host.caller(record.limactl, record.home, self._environ)
            limactl.stop(record.name, _STOP_TIMEOUT)
            removal.end_processes(Path(record.home) / record.name)
        finally:
            self._claims.stopped(record.name)


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """What goes wrong becomes an error that says of which instance.

    It is what the system refuses; or anything, where a test has replaced what is used here. One
    instance doesn't keep the others from being given back, so all of it is caught.
    """
    try:
        yield
    except LimaError:
        raise
    except Exception as error:
        raise CleanupError(
            f"{name} could not be given back",
            seen=str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}",
            remedy="mend that; then the next run, or pytest-lima prune, removes what is left of it",
        ) from error
