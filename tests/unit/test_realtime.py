"""Time goes on where a test has stopped it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import time_machine
from freezegun import freeze_time

from pytest_lima import realtime

FREEZERS: list[Callable[[str], AbstractContextManager[object]]] = [
    freeze_time,
    lambda when: time_machine.travel(when, tick=False),
]


@pytest.mark.parametrize("freeze", FREEZERS, ids=["freezegun", "time-machine"])
def test_no_test_stops_it(freeze: Callable[[str], AbstractContextManager[object]]) -> None:
    before = time.time()
    with freeze("2001-01-01"):
        assert time.time() < 1e9
        assert realtime.now() == pytest.approx(before, abs=60)
        begun = realtime.monotonic()
        realtime.sleep(0.01)
        assert 0.01 <= realtime.monotonic() - begun < 60


def test_a_patched_sleep_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    begun = realtime.monotonic()
    realtime.sleep(0.01)
    assert realtime.monotonic() - begun >= 0.01
