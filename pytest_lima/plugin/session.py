"""What a pytest session knows of Lima: its settings, which VM is whose, and the pool."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lima import realfiles
from pytest_lima.errors import HostError, LimactlMissingError, LimactlVersionError
from pytest_lima.lima import forks
from pytest_lima.lima.engines import ENGINES
from pytest_lima.lima.forks import Origin
from pytest_lima.plugin import boundary
from pytest_lima.plugin.filling import Filler
from pytest_lima.plugin.marks import Ask, adopt, ask_by_name, ask_of, names_of, own_spec, uses_lima
from pytest_lima.plugin.signals import Signals
from pytest_lima.plugin.timer import Timer
from pytest_lima.plugin.wanted import Wanted
from pytest_lima.plugin.xdist import Workers
from pytest_lima.settings import Settings
from pytest_lima.spec import MachineSpec

if TYPE_CHECKING:
    from pytest_lima.instance import Instance
    from pytest_lima.ownership.pool import Pool
    from pytest_lima.plugin.timings import Timing, Timings

session_key = pytest.StashKey["LimaSession"]()

# What it could not do with what a test has left, a reaper does when this process has ended.
_NOT_ENDED = "VMs of this run were not ended, and will be when pytest has ended"


class LimaSession:
    """One per pytest process.

    Attributes:
        settings: The resolved options.
        in_use: Whether a collected test needs a VM.
        problems: What could not be removed at the end, each an error's text.
        notes: What else went wrong in a hook, for the summary.
        finishing: No test will run any more, so `close` ends all VMs. A fixture that ends now is
            nobody's: its error would end pytest, in place of a summary.
        workers: The part of pytest-xdist's controller or worker in it.
        timer: pytest-timeout's, which isn't to count what is done for a VM.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.settings = settings
        self.in_use = False
        self.finishing = False
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.workers = Workers(config)
        self.signals = Signals()
        self.timer = Timer()
        self._origin = Origin()
        self._config = config
        self._lock = threading.Lock()  # of the pool: the factory may be called by threads
        self._pool: Pool | None = None
        self._timings: Timings | None = None
        self._numbers: dict[Ask, int] = {}
        self._wanted = Wanted(distributed=hasattr(config, "workerinput"))
        self._machines: dict[Ask, Instance] = {}
        self._fresh_specs: dict[Ask, MachineSpec] = {}
        self._made_by_factory: list[Instance] = []
        self._fresh: Instance | None = None
        self._filler = Filler(config, settings)
        self._earlier_clones = 0
        self._end: Callable[[], object] | None = None

    def let_go(self) -> None:
        """In a forked child: a thread of the parent's may hold the lock."""
        self._lock = threading.Lock()

    @property
    def pool(self) -> Pool:
        """The machines; made, with all that is imported for it, when first asked for.

        A forked child that goes on with tests has one of its own, as a worker would.
        """
        forks.let_go_in_children(self)
        with self._lock:
            if self._pool is None or not self._pool.origin.is_here:
                from pytest_lima.ownership.pool import Pool
                from pytest_lima.plugin.progress import Progress, held_screen
                from pytest_lima.plugin.timings import Timings

                self._timings = Timings(Progress(self._config, held_screen(self._config)))
                # As it is now: a test may empty it, and its VM has to be ended all the same.
                environ = dict(os.environ)
                self._pool = Pool(self.settings, environ, self._timings, run=self.workers.run())
            return self._pool

    @property
    def made(self) -> Pool | None:
        """The pool, if it was needed."""
        return self._pool

    @property
    def timings(self) -> list[Timing]:
        """Of all that was started, the workers' too."""
        return [*(self._timings.all if self._timings else ()), *self.workers.timings]

    def note_timings(self, item: pytest.Item) -> None:
        """Give a test's report what was started for it since the last one."""
        if self._timings is not None and self.settings.timings:
            for timing in self._timings.take():
                item.user_properties += timing.properties()

    def adopt(self, item: pytest.Item) -> None:
        """Note what a collected test asks for; equal asks have equal numbers."""
        adopt(item, self.settings.templates,
              lambda ask: self._numbers.setdefault(ask, len(self._numbers)))  # fmt: skip

    @realfiles.aside()
    def note_crash(self) -> None:
        """A worker has crashed; until another takes its place, its VMs have only us."""
        if self.workers.expects_vms():
            self.pool.watch_over()

    def expect(self, items: Sequence[pytest.Item]) -> None:
        """Take in the tests that will run."""
        self.in_use = any(uses_lima(item) for item in items)
        self._wanted.expect(items)
        if self.in_use and not self._config.getoption("collectonly"):
            self.workers.join()

    def note_next(self, item: pytest.Item | None) -> None:
        """Which test this process runs after the one that begins."""
        self._wanted.next = item

    @realfiles.aside()
    def begin(self, item: pytest.Item) -> None:
        """A test is about to be set up: it gets living VMs, and a clean one if it wants that.

        Raises:
            LimaError: Whatever kept one from being made anew.
        """
        self._filler.item = item
        self._earlier_clones = len(self._clones)
        with self.timer.stopped():
            self._renew(item)
            self._freshen(item)

    def asked_by_name(self) -> Ask:
        """What the test that is being set up asks for, which has no parameter for it."""
        item = self._filler.item
        return ask_by_name(item, self.settings.templates) if item is not None else Ask()

    def finished(self, item: pytest.Item) -> None:
        """A test has run; its VM has one user less."""
        self._wanted.finished(item)

    def note_end(self, end: Callable[[], object]) -> None:
        """How to end the `lima` fixture that is being set up, and all that depends on it."""
        self._end = self._end or end  # an override of `lima` depends on ours

    def end_unwanted(self, item: pytest.Item) -> None:
        """End the `lima` fixture if ``item`` was the last test that wanted its VM."""
        __tracebackhide__ = True
        ask = ask_of(item)
        wanted = ask is None or self._wanted.has_more(ask)
        if not wanted and ask in self._machines and self._end:
            end, self._end = self._end, None
            end()

    @realfiles.aside()
    def acquire(self, ask: Ask, template: str, overrides: Mapping[str, Any]) -> Instance:
        """The VM of the `lima` fixture.

        Raises:
            LimaError: Whatever kept it from being ready.
        """
        engines = self._wanted.engines_of(ask)
        wanted = self._filler.fill(ask.spec, template, overrides, engines)
        with self.timer.stopped():
            self._require_host(wanted)
            if not ask.fresh:
                self._machines[ask] = self.pool.acquire(wanted)
            elif self._fresh_specs.get(ask) != wanted or ask not in self._machines:
                if ask in self._machines:  # of other values of the override points
                    self._give_back(self._machines.pop(ask))
                self._machines[ask] = self.pool.create(wanted, None)
                self._fresh_specs[ask] = wanted
        return self._machines[ask]  # a fresh one was reset when the test began

    @realfiles.aside()
    def create_fresh(
        self, item: pytest.Item, template: str, overrides: Mapping[str, Any]
    ) -> Instance:
        """A VM of `lima_fresh`, with the engines that any test of the run asks for.

        Raises:
            LimaError: Whatever kept it from being ready.
        """
        wanted = self._filler.fill(own_spec(item), template, overrides, self._wanted.engines)
        later = self._wanted.fresh_after(item)
        with self.timer.stopped():
            self._require_host(wanted)
            self._fresh = self.pool.create_fresh(wanted, later)
        return self._fresh

    @realfiles.aside()
    def release_fresh(self) -> None:
        """The test of `lima_fresh` is over, and its VM with it.

        Raises:
            CleanupError: It can't be removed.
        """
        if self._fresh is not None and not self.finishing:
            with self.timer.stopped():
                self._give_back(self._fresh)
        self._fresh = None

    @realfiles.aside()
    def create(
        self,
        spec: MachineSpec,
        role: str | None,
        engine: str | None,
        template: str,
        overrides: Mapping[str, Any],
    ) -> Instance:
        """A VM of `lima_factory`.

        Raises:
            LimaError: Whatever kept it from being ready.
        """
        wanted = self._filler.fill(spec, template, overrides, frozenset())
        if engine:
            wanted = replace(wanted, engines=ENGINES[engine])
        with self.timer.stopped():
            self._require_host(wanted)
            made = self.pool.create(wanted, role)
        self._made_by_factory.append(made)
        return made

    @realfiles.aside()
    def release(self, ask: Ask) -> None:
        """The `lima` fixture has ended; so does its VM, unless a later test wants it.

        Raises:
            CleanupError: It can't be removed.
        """
        if self.finishing or self._wanted.has_more_like(ask):
            return  # another folder's tests may come to the same machine
        ended = [self._machines.pop(one) for one in [*self._machines] if one.like(ask)]
        with self.timer.stopped():
            for instance in ended:
                if instance not in self._machines.values():
                    self._give_back(instance)

    @realfiles.aside()
    def release_made(self) -> None:
        """The `lima_factory` fixture has ended, and its VMs with it.

        Raises:
            CleanupError: One can't be removed.
        """
        with self.timer.stopped():
            while self._made_by_factory and not self.finishing:
                self._give_back(self._made_by_factory.pop())

    def machines_of(self, item: pytest.Item) -> list[Instance]:
        """The running VMs that a test could use, with those that it has cloned."""
        return self._given_to(item) + self._clones[self._earlier_clones :]

    def close(self) -> bool:
        """End all that is left; whether that went well.

        A forked child ends what it has made itself; the rest is its parent's.
        """
        made_here = self._pool is not None and self._pool.origin.is_here
        if not (made_here or self._origin.is_here):
            return True
        with boundary.told(self.problems.append, _NOT_ENDED), realfiles.aside():
            if self._pool is not None or self.workers.left_something():
                try:
                    self.pool.close()
                    self.problems.clear()
                except ExceptionGroup as group:
                    self.problems[:] = [str(error) for error in group.exceptions]
                self.workers.tell(self.pool.kept, self.problems, self.timings)
                self.problems += self.workers.problems
        return not self.problems

    def _give_back(self, instance: Instance) -> None:
        if self._pool is not None:
            self._pool.release(instance)

    def _given_to(self, item: pytest.Item) -> list[Instance]:
        """Those that it has from fixtures."""
        ask = ask_of(item)
        held = [self._machines[ask]] if ask in self._machines else []
        names = names_of(item)
        if self._fresh is not None and "lima_fresh" in names:
            held.append(self._fresh)
        return held + (self._made_by_factory if "lima_factory" in names else [])

    @property
    def _clones(self) -> list[Instance]:
        return self._pool.clones if self._pool is not None else []

    def _renew(self, item: pytest.Item) -> None:
        """A VM that has died is made anew, if that was asked for."""
        if self.settings.recreate:
            for machine in self._given_to(item):
                if machine.cause_of_death() is not None:
                    self.pool.renew(machine)

    def _freshen(self, item: pytest.Item) -> None:
        """Take away what earlier tests have left in the VM of a test that wants it fresh."""
        ask = ask_of(item)
        if ask is not None and ask.fresh and ask in self._machines:
            self._machines[ask].reset()

    def _require_host(self, wanted: MachineSpec) -> None:
        """Before a start: skip a test that can't have a VM here, where that was asked for."""
        self.signals.install()
        try:
            self.pool.host_for(wanted)
        except (HostError, LimactlMissingError, LimactlVersionError) as error:
            if self.settings.missing != "skip":
                raise
            pytest.skip(f"Lima can't run here: {error}")
