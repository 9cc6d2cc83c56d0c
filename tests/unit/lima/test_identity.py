"""Processes are told apart, and only living ones count."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pytest_lima.lima import identity

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)", "a mark of our own"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def test_this_process_lives() -> None:
    mine = identity.this_process()
    assert mine.pid == os.getpid()
    assert mine.alive()
    assert mine == identity.of(os.getpid())


@pytest.mark.parametrize("change", [{"started": 1.0}, {"host": "another boot"}, {"pid": 2**22 + 1}])
def test_another_start_host_or_pid_is_another_process(change: dict[str, object]) -> None:
    assert not replace(identity.this_process(), **change).alive()  # type: ignore[arg-type]


def test_nobody_has_no_identity() -> None:
    assert identity.of(0) is None
    assert identity.of(2**22 + 1) is None
    assert identity.command_line(2**22 + 1) == ()


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    found = identity.of(sleeper.pid)
    assert found is not None
    assert identity.kill([found]) == []  # not waited for: it stays a zombie
    assert not found.alive()
    assert identity.of(sleeper.pid) is None


def test_processes_are_found_by_their_command_line(sleeper: subprocess.Popen[bytes]) -> None:
    found = list(identity.find(lambda argv: argv[-1] == "a mark of our own"))
    assert [one.pid for one in found] == [sleeper.pid]
    assert list(identity.find(lambda argv: argv[-1] == "nobody's mark")) == []


def test_the_wrong_start_time_is_never_killed(sleeper: subprocess.Popen[bytes]) -> None:
    found = identity.of(sleeper.pid)
    assert found is not None
    assert identity.kill([replace(found, started=1.0)]) == []
    assert sleeper.poll() is None


def test_there_is_some_memory() -> None:
    assert identity.free_memory() > 1


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a system without /proc."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname="Darwin", nodename="a-mac"))
    monkeypatch.setattr(identity, "Path", lambda path: Path(f"/nowhere{path}"))
    identity.this_host.cache_clear()
    yield
    identity.this_host.cache_clear()


@pytest.mark.usefixtures("elsewhere")
def test_without_proc_the_host_is_the_boot_s_id_or_else_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert identity.this_host() == "a-mac"

    def sysctlbyname(name: bytes, value: Any, size: Any, new: None, length: int) -> int:
        assert (name, new, length) == (b"kern.bootsessionuuid", None, 0)
        value.value = b"E621E1F8-C36C-495A"
        return 0

    libc = SimpleNamespace(sysctlbyname=sysctlbyname)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: libc)
    identity.this_host.cache_clear()
    assert identity.this_host() == "E621E1F8-C36C-495A"
    monkeypatch.setattr(libc, "sysctlbyname", lambda *_: -1)
    identity.this_host.cache_clear()
    assert identity.this_host() == "a-mac"


@pytest.mark.usefixtures("elsewhere")
def test_without_proc_a_start_time_is_not_moved_with_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = identity.this_process()
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    assert identity.this_process() == before
    assert before.alive()
