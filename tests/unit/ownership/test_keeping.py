"""What is left behind, and for how long."""

from __future__ import annotations

import time

import pytest

from pytest_lima.lima.identity import this_process
from pytest_lima.ownership import keeping
from pytest_lima.ownership.record import FAILED, READY, Record
from pytest_lima.settings import Settings

MINE = this_process()


def record(state: str = READY, *, failed: bool = False, reuse: bool = False) -> Record:
    return Record("pl-1", "/h", "limactl", "key", "run", MINE, MINE, state=state, failed=failed,
                  reuse=reuse)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "state", "failed", "wanted"),
    [
        (Settings(), READY, True, False),
        (Settings(keep="on-failure"), READY, False, False),
        (Settings(keep="on-failure"), READY, True, True),
        (Settings(keep="on-failure"), FAILED, True, True),
        (Settings(keep="always"), READY, False, True),
        (Settings(teardown="stop"), READY, False, True),
        (Settings(teardown="stop"), FAILED, True, False),  # there is nothing to be stopped
    ],
)
def test_what_is_wanted(settings: Settings, state: str, failed: bool, wanted: bool) -> None:
    assert keeping.wanted(record(state, failed=failed), settings) is wanted


@pytest.mark.parametrize(
    ("settings", "state", "reuse", "wanted"),
    [
        (Settings(reuse=True), READY, True, True),
        (Settings(reuse=True), READY, False, False),  # nobody could ever join it
        (Settings(reuse=True), FAILED, True, False),  # nor that
        (Settings(reuse=True, keep="always", sources={"keep": "ini"}), READY, False, True),
        (Settings(reuse=True, sources={"keep": "command line"}), READY, True, False),
    ],
)
def test_what_is_left_for_reuse(settings: Settings, state: str, reuse: bool, wanted: bool) -> None:
    assert keeping.wanted(record(state, reuse=reuse), settings) is wanted


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        (Settings(keep="always"), None),
        (Settings(reuse=True), 1800.0),
        (Settings(reuse=True, idle=60.0), 60.0),
        (Settings(keep="always", idle=60.0), 60.0),
    ],
)
def test_for_how_long(settings: Settings, idle: float | None) -> None:
    kept = keeping.kept(record(), settings)
    assert kept.keep and kept.idle == idle
    assert abs(kept.used - time.time()) < 60
