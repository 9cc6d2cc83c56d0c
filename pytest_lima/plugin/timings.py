"""How long each phase of each start took: for ``--lima-timings``'s table and junit's properties."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pytest_lima import realtime
from pytest_lima.observer import Observer, Relay


@dataclass(frozen=True)
class Timing:
    """One start of an instance, or one reboot or reset of it.

    Attributes:
        instance: Lima's name of it.
        outcome: ``ready``, ``joined`` or ``failed``.
        seconds: From its first phase to that.
        phases: Each phase with its seconds, in their order.
    """

    instance: str
    outcome: str
    seconds: float
    phases: tuple[tuple[str, float], ...]

    def properties(self) -> Iterator[tuple[str, str]]:
        """Names and values, as a test's report has them."""
        for phase, seconds in self.phases:
            yield f"lima {self.instance} {phase}", f"{seconds:.2f}"
        yield f"lima {self.instance} {self.outcome}", f"{self.seconds:.2f}"


class Timings(Relay):
    """Passes everything on, and notes when.

    Attributes:
        all: What has ended so far, the first one first.
    """

    def __init__(self, observer: Observer) -> None:
        super().__init__(observer)
        self.all: list[Timing] = []
        self._begun: dict[str, list[tuple[str, float]]] = {}
        self._taken = 0
        self._lock = threading.Lock()  # a test may start VMs in threads of its own

    def take(self) -> list[Timing]:
        """What has ended since this was called last."""
        with self._lock:
            new, self._taken = self.all[self._taken :], len(self.all)
        return new

    def phase(self, instance: str, phase: str) -> None:
        """One ends, another begins."""
        with self._lock:
            begun = self._begun.setdefault(instance, [])
            if not begun or begun[-1][0] != phase:
                begun.append((phase, realtime.monotonic()))
        super().phase(instance, phase)

    def ready(self, instance: str, seconds: float) -> None:
        """The last phase has ended well."""
        self._end(instance, "ready")
        super().ready(instance, seconds)

    def joined(self, instance: str, seconds: float) -> None:
        """There may have been no phase at all."""
        self._end(instance, "joined", seconds)
        super().joined(instance, seconds)

    def failed(self, instance: str) -> None:
        """The last phase didn't end well."""
        self._end(instance, "failed")
        super().failed(instance)

    def _end(self, instance: str, outcome: str, seconds: float = 0.0) -> None:
        now = realtime.monotonic()
        with self._lock:
            begun = self._begun.pop(instance, [])
            ends = [*(start for _, start in begun[1:]), now]
            phases = tuple(
                (phase, end - start) for (phase, start), end in zip(begun, ends, strict=True)
            ) if begun else ()  # fmt: skip
            total = now - begun[0][1] if begun else seconds
            self.all.append(Timing(instance, outcome, total, phases))


def show(reporter: pytest.TerminalReporter, timings: list[Timing]) -> None:
    """The table at the end of a run."""
    reporter.section("lima timings", sep="-")
    for one in timings:
        reporter.line(f"{one.seconds:8.2f} s  {one.instance} {one.outcome}")
        for phase, seconds in one.phases:
            reporter.line(f"{seconds:8.2f} s    {phase}")
