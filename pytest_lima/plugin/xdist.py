"""pytest-xdist: what makes the workers of a run one run, and what its controller does at the end.

A worker is told the run's id and owner; on another host (``--tx ssh=…``) it answers for its own
VMs, as the ledger there knows nothing of the controller. Nothing here imports pytest-xdist.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lima import realtime
from pytest_lima.plugin import boundary

if TYPE_CHECKING:
    from pytest_lima.ownership.ending import Kept
    from pytest_lima.ownership.ledger import Ledger
    from pytest_lima.ownership.record import Record
    from pytest_lima.ownership.run import Run
    from pytest_lima.plugin.timings import Timing

_INPUT = "lima_run"
_OUTPUT = "lima_in_use"
_LEFT = "lima_left"
_TIMINGS = "lima_timings"
_LEAVE_TIMEOUT = 5.0
_LOOK = 0.5


class Workers:
    """What this process is to the run: its only one, a worker, or the controller of some.

    Attributes:
        kept: What the workers have kept where this process's ledger doesn't show it.
        timings: Of all that the workers have started.
        problems: What they could not remove there, each an error's text.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.kept: list[Kept] = []
        self.problems: list[str] = []
        self.timings: list[Timing] = []
        self._config = config
        self._input: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._id = ""
        self._free_memory = 0
        self._to_finish = False
        self._alive = 0
        self._run: Run | None = None
        self._shown: Boots | None = None

    @property
    def controls(self) -> bool:
        """Whether this is the controller."""
        return bool(self._id)

    def configure(self, node: Any) -> None:
        """Tell a worker that is about to start which run it belongs to."""
        from pytest_lima.lima.identity import this_process

        self._id = self._id or secrets.token_hex(8)
        self._alive += 1
        mine = this_process()
        node.workerinput[_INPUT] = [self._id, mine.pid, mine.started, mine.host]

    def run(self) -> Run:
        """The run, for the pool."""
        from pytest_lima.lima.identity import Identity, this_host, this_process
        from pytest_lima.ownership.run import Run

        if self._run is None:
            if self._input is not None and _INPUT in self._input:
                id_, pid, started, host = self._input[_INPUT]
                owner = Identity(pid, started, host) if host == this_host() else this_process()
                label = str(self._input.get("workerid", ""))
                self._run = Run(id_, owner, label, many=True, free_memory=self._free_memory)
            elif self.controls:
                self._run = Run(self._id, this_process(), many=True, final=True)
            else:
                self._run = Run.alone()
        return self._run

    def join(self) -> None:
        """This worker has tests that want VMs: it is to be waited for before one ends."""
        if self._input is None or _INPUT not in self._input:
            return
        from pytest_lima.lima.identity import free_memory, this_process

        ledger = _open_ledger()
        if ledger is None:
            return
        self._free_memory = free_memory()
        with suppress(OSError):  # a full disk is told to each test that wants a VM
            ledger.join(self._input[_INPUT][0], this_process())
        self._to_finish = True
        self._config.workeroutput[_OUTPUT] = True  # type: ignore[attr-defined]

    def collected(self) -> bool:
        """In the controller, when a worker has collected: whether any wants VMs."""
        if self._shown is None and _ever_used():
            ledger = _open_ledger()
            if ledger is not None and ledger.members(self._id):
                self._shown = Boots(self._config, ledger, self._id)
        return self._shown is not None

    def expects_vms(self) -> bool:
        """In the controller: whether workers, living or crashed, want VMs or have some."""
        ledger = _open_ledger() if _ever_used() else None
        return ledger is not None and bool(ledger.joined(self._id))

    def ended(self, node: Any, error: object) -> None:
        """A worker has ended; one that crashed can't say whether it had VMs."""
        self._alive -= 1
        output = getattr(node, "workeroutput", None) or {}
        if error or not output or output.get(_OUTPUT):
            self._to_finish = True
        if _LEFT in output:
            self._take_in(*output[_LEFT])
        if _TIMINGS in output:
            from pytest_lima.plugin.timings import Timing

            self.timings += [Timing(*one) for one in output[_TIMINGS]]

    def tell(
        self, kept: Sequence[Kept], problems: Sequence[str], timings: Sequence[Timing]
    ) -> None:
        """In a worker, at its end: what its controller can't know, or has no ledger to look at.

        Args:
            kept: What it has left behind.
            problems: What it could not remove.
            timings: Of what it has started, which no ledger has.
        """
        if self._input is None:
            return
        self._config.workeroutput[_TIMINGS] = [  # type: ignore[attr-defined]
            astuple(one) for one in timings
        ]
        if kept or problems:
            plain = [astuple(one) for one in kept]
            left = [*_ledger(), os.uname().nodename, plain, list(problems)]
            self._config.workeroutput[_LEFT] = left  # type: ignore[attr-defined]

    def _take_in(
        self, host: str, folder: str, name: str, kept: list[Any], problems: list[str]
    ) -> None:
        from pytest_lima.ownership.ending import Kept

        if (host, folder) == _ledger():
            return  # ours, where it may have changed since
        self.kept += [replace(Kept(*one), host=name) for one in kept]
        self.problems += [f"on {name}: {problem}" for problem in problems]

    def left_something(self) -> bool:
        """Whether the ledger has to be looked at, at the end of this process."""
        # Workers that were killed have not ended for us; they may have had VMs.
        if not (self._to_finish or self._alive):
            return False
        self._to_finish, self._alive = False, 0
        if self._shown is not None:
            self._shown.end()
        ledger = _open_ledger()
        if ledger is not None and self.controls:
            self._await_workers(ledger)
        return ledger is not None

    def _await_workers(self, ledger: Ledger) -> None:
        """Those that were interrupted are given a moment to give their VMs back."""
        deadline = realtime.monotonic() + _LEAVE_TIMEOUT
        while ledger.members(self._id) and realtime.monotonic() < deadline:
            # Leaving is a file that goes; their end could be waited for, but is later
            realtime.sleep(0.05)


class Boots:
    """Shows in the controller what its workers start: theirs is no terminal."""

    def __init__(self, config: pytest.Config, ledger: Ledger, run: str) -> None:
        from pytest_lima.plugin.progress import Progress

        self._progress = Progress(config)
        self._ledger = ledger
        self._run = run
        self._ended = threading.Event()
        self._told: dict[str, str] = {}
        self._warned: set[str] = set()
        threading.Thread(target=self._watch, name="pytest-lima-boots", daemon=True).start()

    def end(self) -> None:
        """Show nothing more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            with boundary.told(self._warn_once, "what the workers start is not shown now"):
                for record in self._ledger.records():
                    if record.run == self._run:
                        self._tell(record)

    def _warn_once(self, problem: str) -> None:
        """It is looked for again in any case."""
        if problem not in self._warned:
            self._warned.add(problem)
            with suppress(OSError, ValueError):  # the terminal may be what is gone
                self._progress.warn(problem)

    def _tell(self, record: Record) -> None:
        if record.keep and record.state != "failed":
            return  # it is being left behind
        phase = self._ledger.phase(record.name) if record.state == "starting" else record.state
        before, self._told[record.name] = self._told.get(record.name), phase
        if not phase or phase == before:
            return
        if record.state == "starting":
            self._progress.phase(record.name, f"{phase} (by {record.label})")
        elif record.state == "failed":
            self._progress.failed(record.name)
        elif record.state == "ready" and before is not None:
            self._progress.ready(record.name, self._progress.seconds(record.name))


def _open_ledger() -> Ledger | None:
    """The ledger; None where there can't be one, which is an error of each test that wants a VM."""
    from pytest_lima.errors import HostError
    from pytest_lima.ownership.ledger import Ledger

    try:
        return Ledger()
    except HostError:
        return None


def _ledger() -> tuple[str, str]:
    """Which ledger is this process's: on what host, and where there."""
    from pytest_lima.lima.identity import this_host
    from pytest_lima.ownership.ledger import state_folder

    return this_host(), str(state_folder())


def _ever_used() -> bool:
    """Whether there is a state directory of ours at all, before anything is imported for it."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folders = (
        state if os.path.isabs(state) else "~/.local/state",  # noqa: PTH117 - a text
        "~/Library/Application Support",
    )
    try:
        return any(Path(folder, "pytest-lima").expanduser().exists() for folder in folders)
    except (OSError, RuntimeError):
        return False  # the home directory is not ours to look into, or there is none
