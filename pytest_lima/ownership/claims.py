"""Claims on instances: who starts one, who waits for it, who may join, who is the last out.

All decisions are made here, on the ledger and under its lock, and none takes longer than a
look at the records: starting, waiting and deleting go on outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from pytest_lima import realtime
from pytest_lima.errors import AcceleratorError, LimaError
from pytest_lima.lima import paths
from pytest_lima.lima.identity import Identity, this_process
from pytest_lima.lima.limactl import Limactl
from pytest_lima.ownership import choosing, failures, keeping
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import ENDING, FAILED, READY, STARTING, Record
from pytest_lima.ownership.run import Run
from pytest_lima.settings import Settings

SHARED = "shared"
KEEP = "keep"
STOP = "stop"
DELETE = "delete"


class Claims:
    """This process's dealings with the ledger."""

    def __init__(self, ledger: Ledger, settings: Settings, run: Run) -> None:
        self._ledger = ledger
        self._settings = settings
        self._run = run

    def take(
        self, key: str, facts: Mapping[str, str], limactl: Limactl, most: int
    ) -> tuple[Record, bool]:
        """Claim an instance of this key, or the right to start one.

        Args:
            key: Of the filled template.
            facts: What it is, for people.
            limactl: Of the LIMA_HOME it has to be in.
            most: VMs that the workers of a run may have, with ``--lima-share=worker``.

        Returns:
            Its record with our lease, and whether it is ours to start.
        """
        mine = this_process()
        with self._ledger.lock():
            wanted = choosing.Wanted(key, str(limactl.home), most, self._run, self._settings, mine)
            found = choosing.choose(self._ledger.records(), wanted)
            if found is None:
                found = self._new(paths.instance_name(), key, facts, limactl, shared=True)
                self._ledger.write(found)
                return found, True
            if found.state != FAILED:
                found = found.leased(mine)
                self._ledger.write(found)
            return found, False

    def take_alone(self, name: str, facts: Mapping[str, str], limactl: Limactl) -> Record:
        """The right to start an instance that nobody else gets."""
        record = self._new(name, name, facts, limactl, shared=False)
        with self._ledger.lock():
            self._ledger.write(record)
        return record

    def take_spare(
        self, name: str, facts: Mapping[str, str], limactl: Limactl, fits: Callable[[int], bool]
    ) -> bool:
        """The right to start one for later, if ``fits`` says so of the number of VMs of the run."""
        record = self._new(name, name, facts, limactl, shared=False)
        with self._ledger.lock():
            running = [one for one in self._ledger.records()
                       if one.run == self._run.id and one.state != FAILED]  # fmt: skip
            if fits(len(running)):
                self._ledger.write(record)
                return True
            return False

    def take_over(
        self, name: str, *, dead: bool, most: int | None = None, seen: Record | None = None
    ) -> bool:
        """The right to make an instance anew, unless somebody living is at it already.

        Args:
            name: Of the instance.
            dead: Its VM was seen to be.
            most: How often that may be done; None: as often as it is needed.
            seen: Its record before its VM was looked at: what others have made anew since then
                is another VM.
        """
        mine = this_process()
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is None or record.state == ENDING or record.is_taken_from(mine):
                return False
            if seen is not None and record.made != seen.made:
                return False
            spent = most is not None and record.recreated >= most
            if spent or (record.state == READY and not dead):
                return False
            again = record.recreated + (most is not None)
            self._ledger.write(
                replace(
                    record.leased(mine),
                    state=STARTING,
                    starter=mine,
                    recreated=again,
                    label=self._run.label,
                )
            )
            return True

    def begin_anew(self, name: str, what: str, facts: Mapping[str, str], limactl: Limactl) -> None:
        """The right to delete an instance of ours and to make it again under its name.

        Who comes for it from now on waits until it is ready. Where nothing was left of it, as
        the last time failed, it is recorded as one that nobody else gets.

        Args:
            name: Of the instance.
            what: What is to be done with it, for the error.
            facts: What it is, for people.
            limactl: Of its LIMA_HOME.

        Raises:
            LimaError: Others use it, or remove it.
        """
        mine = this_process()
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is None:
                record = self._new(name, name, facts, limactl, shared=False)
            failures.refuse_others(record, mine, what)
            begun = record.leased(mine)
            self._ledger.write(replace(
                begun, state=STARTING, starter=mine, label=self._run.label, keep=False, failure=None
            ))  # fmt: skip

    @contextmanager
    def standing_still(self, name: str, what: str) -> Iterator[None]:
        """Have an instance alone; who comes for it meanwhile waits until it runs on.

        Args:
            name: Of the instance.
            what: What is done with it, for the error.

        Raises:
            LimaError: Others use it.
        """
        mine = this_process()
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is not None:
                failures.refuse_others(record, mine, what)
                still = replace(record, state=STARTING, starter=mine, label=self._run.label)
                self._ledger.write(still if record.state == READY else record)
        try:
            yield
        finally:
            if record is not None and record.state == READY:
                self.stopped(name)

    def ready(self, name: str) -> None:
        """What we have started is ready; those who wait may join.

        Raises:
            LimaError: Somebody has taken it meanwhile, to remove it.
        """
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is None or record.state == ENDING or record.starter != this_process():
                raise failures.removed(name, record)
            self._ledger.write(replace(record, state=READY))

    def stopped(self, name: str) -> None:
        """What we have stopped, or had stand still, may be joined; unless it is removed by now."""
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record and (record.state, record.starter) == (STARTING, this_process()):
                self._ledger.write(replace(record, state=READY))

    def failed(self, name: str, error: LimaError | None) -> str:
        """It couldn't be started: whoever waits gets the error at once.

        Args:
            name: Of the instance.
            error: What went wrong; None when we were interrupted, which is nobody else's.

        Returns:
            What to do with what is left of it: ``keep`` or ``delete``. The latter also where
            somebody else is removing it, who may be done before our last step was.
        """
        mine = this_process()
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is None or record.is_taken_from(mine):
                return DELETE
            record = record.released(mine)
            if error is None or record.state == ENDING:
                self._ledger.mark_ending(record, mine)
                return DELETE
            record = replace(record, state=FAILED, keep=False, failed=True,
                             failure=failures.to_plain(error))  # fmt: skip
            keep = keeping.wanted(record, self._settings)
            if self._settings.accel == "auto" and isinstance(error, AcceleratorError):
                keep = False  # another takes its place, emulated
            self._ledger.write(keeping.kept(record, self._settings) if keep else record)
            return KEEP if keep else DELETE

    def settle(self, name: str) -> None:
        """Nothing is left of what had failed; its error is, for others of this run."""
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is None or record.is_taken_from(this_process()):
                return
            lasting = record.state == FAILED and record.shared
            if not (lasting and (self._run.many or record.holders)):
                self._ledger.forget(name)

    def release(self, name: str, *, failed: bool) -> str:
        """Give back an instance: ``shared``, or what is then ours to do.

        ``keep``, ``delete``, or ``stop``; who wants to join one that is stopped waits until we
        say that it is ``stopped``.
        """
        mine = this_process()
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is None:
                return SHARED
            if record.keep and record.state == STARTING and record.starter == mine:
                record = replace(record, state=READY)  # we were interrupted when we stopped it
            record = replace(
                record.released(mine), failed=record.failed or failed, used=realtime.now()
            )
            if record.state == FAILED and record.keep:
                self._ledger.write(record)
                return SHARED  # left behind already, when it failed
            if record.state == ENDING and record.starter == mine:
                return DELETE  # an interrupt came in between
            if record.state == ENDING or record.is_taken_from(mine):
                self._ledger.write(record)
                return SHARED
            if record.holders or self._others_may_want(record, mine):
                self._ledger.write(record)
                return SHARED
            if record.state != FAILED and keeping.wanted(record, self._settings):
                stops = record.state == READY and self._settings.teardown == "stop"
                kept = keeping.kept(record, self._settings)
                self._ledger.write(replace(kept, state=STARTING, starter=mine) if stops else kept)
                return STOP if stops else KEEP
            self._ledger.mark_ending(record, mine)
            return DELETE

    def of_run(self) -> list[Record]:
        """What there is of this run, nobody being at it."""
        return [record for record in self._ledger.records()
                if record.run == self._run.id and not record.holders]  # fmt: skip

    def drop(self, name: str) -> None:
        """Take back a lease, and decide nothing."""
        with self._ledger.lock():
            record = self._ledger.read(name)
            if record is not None:
                self._ledger.write(record.released(this_process()))

    def _new(
        self, name: str, key: str, facts: Mapping[str, str], limactl: Limactl, *, shared: bool
    ) -> Record:
        mine = this_process()
        return Record(
            name, str(limactl.home), limactl.path, key, self._run.id, self._run.owner, mine,
            label=self._run.label, leases=(mine,), used=realtime.now(), shared=shared,
            facts=dict(facts),
            reuse=shared and (self._settings.reuse or self._settings.keep == "always"),
        )  # fmt: skip

    def _others_may_want(self, record: Record, mine: Identity) -> bool:
        """Whether a worker of this run that doesn't hold it now could ask for it later."""
        if self._run.final or not (self._run.many and record.shared):
            return False
        if record.run != self._run.id:
            return False
        # One that crashed is replaced by pytest-xdist, and then the controller ends what is left.
        controlled = self._run.owner != mine and self._run.owner.alive()
        look = self._ledger.joined if controlled else self._ledger.members
        others = [one for one in look(self._run.id) if one != mine]
        return self._settings.share == "run" and bool(others)
