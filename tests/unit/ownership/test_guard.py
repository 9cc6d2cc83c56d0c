"""Having a reaper: a real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pytest_lima.errors import HostError
from pytest_lima.ownership import guard as module
from pytest_lima.ownership.guard import Guard


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard({"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(tmp_path)})


def pid_of(guard: Guard) -> int:
    assert guard._companion is not None
    return guard._companion._popen.pid


def test_one_reaper_that_goes_when_it_is_told_to(
    guard: Guard, gone: Callable[[int], bool], tmp_path: Path
) -> None:
    guard.call()
    pid = pid_of(guard)
    guard.await_ready()
    guard.call()
    guard.await_ready()
    assert pid_of(guard) == pid
    assert (tmp_path / "pytest-lima" / "reaper.log").exists()
    guard.dismiss()
    assert gone(pid)
    guard.dismiss()  # nothing more to say


def test_after_that_another_one_can_be_had(guard: Guard, gone: Callable[[int], bool]) -> None:
    guard.await_ready()
    first = pid_of(guard)
    guard.dismiss()
    guard.await_ready()
    second = pid_of(guard)
    assert second != first
    guard.dismiss()
    assert gone(first) and gone(second)


@pytest.mark.parametrize(
    ("program", "seen"),
    [("echo no module for you; exit 1", "no module for you"), ("", "no answer")],
)
def test_one_that_does_not_get_ready_is_an_error(
    guard: Guard,
    tool: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    seen: str,
) -> None:
    monkeypatch.setattr(sys, "executable", str(tool("python", program)))
    with pytest.raises(HostError, match="did not start") as caught:
        guard.await_ready()
    assert caught.value.seen is not None and seen in caught.value.seen
    assert "pytest_lima.ownership.reaper" in str(caught.value)


def test_one_that_stays_silent_is_ended(
    guard: Guard, tool: Callable[..., Path], gone: Callable[[int], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "_READY_TIMEOUT", 0.3)
    monkeypatch.setattr(sys, "executable", str(tool("python", "exec sleep 60")))
    guard.call()
    pid = pid_of(guard)
    with pytest.raises(HostError):
        guard.await_ready()
    assert gone(pid)


def test_eight_threads_have_one_reaper(guard: Guard, gone: Callable[[int], bool]) -> None:
    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(guard.await_ready) for _ in range(8)]:
            future.result(30)
    pid = pid_of(guard)
    assert [one.pid for one in psutil.Process().children()].count(pid) == 1
    guard.dismiss()
    assert gone(pid)


def test_one_that_fails_is_told_to_each_thread(
    guard: Guard, tool: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tool("python", "echo no module for you; exit 1")))
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(guard.await_ready) for _ in range(8)]
    for future in asked:
        assert "no module for you" in str(future.exception())


def test_it_stays_while_a_thread_starts_something(
    guard: Guard, gone: Callable[[int], bool]
) -> None:
    with guard.watching():
        pid = pid_of(guard)
        guard.dismiss()
        assert psutil.pid_exists(pid)
    guard.dismiss()
    assert gone(pid)
