"""An instance's life: its processes and its kernel."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_lima import realfiles
from pytest_lima.errors import InstanceDiedError
from pytest_lima.lima import identity
from pytest_lima.lima.vitals import Vitals, Watch


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    processes = {}
    for name in ("qemu", "ha"):
        processes[name] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (tmp_path / f"{name}.pid").write_text(f"{processes[name].pid}\n")
    (tmp_path / "serial.log").write_text("login:\n")
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


def test_it_lives(tmp_path: Path, machine: object) -> None:
    vitals = Vitals(tmp_path)
    assert vitals.cause_of_death() is None
    vitals.check()


@pytest.mark.parametrize(("name", "told"), [("qemu", "the VM's"), ("ha", "the host agent's")])
def test_either_process_is_its_life(
    tmp_path: Path, machine: dict[str, subprocess.Popen[bytes]], name: str, told: str
) -> None:
    vitals = Vitals(tmp_path)
    machine[name].kill()
    machine[name].wait()
    with pytest.raises(InstanceDiedError, match=f"has died: {told} process") as caught:
        vitals.check()
    assert "login:" in str(caught.value)
    assert "--lima-recreate" in str(caught.value)


def test_an_oom_kill_of_this_host_is_told(
    tmp_path: Path, machine: dict[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 9\noom_kill 3\nnr_x 1\n")
    monkeypatch.setattr("pytest_lima.lima.vitals._COUNTERS", counters)
    before = Vitals(tmp_path)
    counters.write_text("pgfault 9\noom_kill 4\nnr_x 1\n")
    after = Vitals(tmp_path)
    machine["qemu"].kill()
    machine["qemu"].wait()
    assert "OOM killer has struck" in str(before.cause_of_death())
    assert "OOM" not in str(after.cause_of_death())


def test_without_a_process_it_is_dead(tmp_path: Path) -> None:
    (tmp_path / "qemu.pid").write_text("nonsense")
    assert Vitals(tmp_path).cause_of_death() == "it has no process"


def test_a_panic_is_found_once_it_is_whole(tmp_path: Path, machine: object) -> None:
    vitals = Vitals(tmp_path)
    with (tmp_path / "serial.log").open("ab") as console:
        console.write(b"Kernel panic - not sync")
        console.flush()
        vitals.look_at_console()
        assert vitals.cause_of_death() is None
        console.write(b"ing: Attempted to kill init!\r\n\x1b[0m")
    vitals.look_at_console()
    assert vitals.cause_of_death() == "Kernel panic - not syncing: Attempted to kill init!"


def test_what_was_there_before_does_not_count(tmp_path: Path, machine: object) -> None:
    (tmp_path / "serial.log").write_text("Kernel panic - not syncing: of the boot before\n" * 9)
    vitals = Vitals(tmp_path)
    vitals.look_at_console()
    assert vitals.cause_of_death() is None
    (tmp_path / "serial.log").write_text("a new start\n")
    vitals.look_at_console()
    assert vitals.cause_of_death() is None


def test_a_guest_that_its_accelerator_has_stopped_is_dead(tmp_path: Path, machine: object) -> None:
    """QEMU stays, and so do its process and the host agent's."""
    vitals = Vitals(tmp_path)
    vitals.look()
    log = tmp_path / "ha.stderr.log"
    log.write_text('{"level":"debug","msg":"qemu[stderr]: KVM internal error. Suberror: 1"}\n')
    with pytest.raises(InstanceDiedError, match=r"stopped it: KVM internal error. Suberror: 1"):
        vitals.look()
    log.write_text('{"level":"debug","msg":"of later"}\n')
    with pytest.raises(InstanceDiedError) as caught:
        vitals.look()
    assert "--lima-accel=tcg" in (caught.value.remedy or "")


def test_a_watch_tells_and_ends(
    tmp_path: Path, machine: dict[str, subprocess.Popen[bytes]], until: Callable[..., bool]
) -> None:
    told: list[bool] = []
    watch = Watch(Vitals(tmp_path), lambda: told.append(True))
    machine["qemu"].kill()
    machine["qemu"].wait()
    assert watch.died.wait(5)
    assert until(lambda: told == [True])
    ended = Watch(Vitals(tmp_path), lambda: told.append(False))
    ended.end()
    assert told == [True]


def test_one_that_cannot_be_looked_at_lives(
    tmp_path: Path, machine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    vitals = Vitals(tmp_path)
    mine = identity.this_process()
    monkeypatch.setattr(realfiles._System, "open", full)
    vitals.look()
    assert vitals.cause_of_death() is None
    with pytest.raises(OSError, match="Too many open files"):
        mine.alive()  # whoever would delete something for that isn't told that it is dead


def test_what_a_test_replaces_is_not_looked_at(
    tmp_path: Path, machine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("replaced")

    vitals = Vitals(tmp_path)
    with monkeypatch.context() as patch:
        for name in ("read_text", "read_bytes", "open", "stat", "exists"):
            patch.setattr(Path, name, refuse)
        for name in ("open", "read", "stat", "kill", "getpid"):
            patch.setattr(os, name, refuse)
        patch.setattr("builtins.open", refuse)
        vitals.look()
        cause = vitals.cause_of_death()
    assert cause is None
