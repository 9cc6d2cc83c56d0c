"""Waiting for another run, with word on who that is."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_lima import realtime
from pytest_lima.errors import ReadyTimeoutError
from pytest_lima.lima.identity import Identity, this_process
from pytest_lima.lima.locks import Holder
from pytest_lima.warm.turn import await_turn

if TYPE_CHECKING:
    from conftest import Recorder


def test_who_is_waited_for_is_told_and_each_has_its_time(observer: Recorder) -> None:
    mine = this_process()
    other = Holder(replace(mine, pid=mine.pid + 1), 0.0)
    begun = realtime.monotonic()

    def builder() -> Holder | None:
        seconds = realtime.monotonic() - begun
        return None if seconds < 0.4 else Holder(mine, 0.0) if seconds < 0.8 else other

    await_turn("pl-1", 0.7, observer, builder, lambda: realtime.monotonic() > begun + 1.2)
    assert observer.all("phase") == [
        f"waiting for another run that starts the same VM: {who}"
        for who in ("that process", f"process {mine.pid}", f"process {mine.pid + 1}")
    ]


def test_one_that_is_suspended_is_named_at_the_end(observer: Recorder) -> None:
    holder = Holder(this_process(), 0.0)
    with pytest.raises(ReadyTimeoutError, match="another run has been starting") as caught:
        await_turn("pl-1", 0.3, observer, lambda: holder, lambda: False)
    told = str(caught.value)
    assert f"process {os.getpid()} for " in told and "pytest" in told
    assert f"end or continue process {os.getpid()}, which may be suspended" in told


def test_one_that_is_gone_or_not_known_is_told_so(observer: Recorder) -> None:
    gone = Holder(Identity(4194304, 1.0, this_process().host), 0.0)
    assert str(gone).endswith("which is gone")
    with pytest.raises(ReadyTimeoutError, match="it isn't known which run"):
        await_turn("pl-1", 0.3, observer, lambda: None, lambda: False)
