from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_lima.plugin.timings import Timings

if TYPE_CHECKING:
    from conftest import Recorder


def test_phases_of_instances_at_once_are_told_apart(
    observer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 3.0, 4.0, 8.0, 9.0])
    monkeypatch.setattr("pytest_lima.realtime.monotonic", lambda: next(clock))
    timings = Timings(observer)
    timings.phase("pl-1", "creating")
    timings.phase("pl-2", "creating")
    timings.phase("pl-1", "booting")
    timings.phase("pl-2", "booting")
    timings.ready("pl-1", 8.1)
    timings.failed("pl-2")
    one, two = timings.all
    assert (one.instance, one.outcome, one.seconds) == ("pl-1", "ready", 8.0)
    assert one.phases == (("creating", 3.0), ("booting", 5.0))
    assert (two.outcome, two.seconds) == ("failed", 8.0)
    assert two.phases == (("creating", 3.0), ("booting", 5.0))
    assert dict(one.properties()) == {
        "lima pl-1 creating": "3.00", "lima pl-1 booting": "5.00", "lima pl-1 ready": "8.00",
    }  # fmt: skip


def test_a_joined_one_may_have_no_phase(observer: Recorder) -> None:
    timings = Timings(observer)
    timings.joined("pl-1", 0.5)
    [one] = timings.take()
    assert (one.outcome, one.seconds, one.phases) == ("joined", 0.5, ())
    assert timings.take() == [] and timings.all == [one]


def test_everything_is_told_on(observer: Recorder) -> None:
    timings = Timings(observer)
    timings.phase("pl-1", "booting")
    timings.phase("pl-1", "booting")
    timings.ready("pl-1", 1.0)
    timings.warn("careful")
    assert len(timings.all[0].phases) == 1
    assert observer.told == [
        ("phase", "booting"), ("phase", "booting"), ("ready", "pl-1"), ("warn", "careful"),
    ]  # fmt: skip
