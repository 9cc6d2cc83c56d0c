"""Waiting for another run, with word on who that is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import ReadyTimeoutError
from pytest_lima.lima.identity import Identity, this_process
from pytest_lima.lima.locks import Holder
from pytest_lima.warm.turn import await_turn

if TYPE_CHECKING:
    from conftest import Recorder


def test_who_is_waited_for_is_told(observer: Recorder) -> None:
    mine = this_process()
    holders = [None, Holder(mine, 0.0), Holder(mine, 0.0)]
    turns = [False, False, False, True]
    await_turn("pl-1", 10, observer, lambda: holders.pop(0), lambda: turns.pop(0))
    assert observer.all("phase") == [
        "waiting for another run that starts the same VM: that process",
        f"waiting for another run that starts the same VM: process {os.getpid()}",
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
