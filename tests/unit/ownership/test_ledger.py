"""The ledger's files, locks and members."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import filelock
import pytest
import time_machine
from freezegun import freeze_time

from pytest_lima import realtime
from pytest_lima.errors import HostError
from pytest_lima.lima import paths
from pytest_lima.lima.identity import Identity, this_process
from pytest_lima.ownership import ledger as ledgers
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import Record

MINE = this_process()
RECORD = Record("pl-1", "/h", "/bin/limactl", "key", "run", MINE, MINE)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "instances")


def test_records_are_written_read_and_forgotten(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(RECORD)
    ledger.write(replace(RECORD, name="pl-2", keep=True))
    assert ledger.read("pl-1") == RECORD
    assert [record.name for record in ledger.records()] == ["pl-1", "pl-2"]
    ledger.note_phase("pl-1", "booting")
    assert ledger.phase("pl-1") == "booting"
    ledger.forget("pl-1")
    ledger.forget("pl-1")
    assert (ledger.read("pl-1"), ledger.phase("pl-1")) == (None, "")
    ledger.note_phase("pl-1", "booting")  # by a starter that doesn't know yet
    assert ledger.phase("pl-1") == ""
    left = {path.name for path in (tmp_path / "instances").iterdir()}
    assert left == {"pl-2.json", "lock", "lock.holder"}


def test_it_is_private(ledger: Ledger, tmp_path: Path) -> None:
    assert (tmp_path / "instances").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="can't be made") as caught:
        Ledger(tmp_path / "file" / "instances")
    assert str(tmp_path / "file") in str(caught.value)
    assert "XDG_STATE_HOME" in str(caught.value)


def test_what_can_not_be_read_is_named_and_left(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(RECORD)
    bad = tmp_path / "instances" / "pl-3.json"
    bad.write_text('{"version": 7}')
    assert [record.name for record in ledger.records()] == ["pl-1"]
    assert list(ledger.unreadable()) == [bad]
    assert "version 7" in ledger.unreadable()[bad]
    assert bad.exists()


def test_the_lock_keeps_others_out(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_LOCK_TIMEOUT", 0.2)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Ledger(tmp_path / "instances").lock():
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    with pytest.raises(HostError, match="has held the ledger") as caught, ledger.lock():
        pass
    assert f"process {MINE.pid} for" in str(caught.value)
    done.set()
    thread.join()
    with ledger.lock():
        pass


def test_nothing_is_written_or_forgotten_while_another_decides(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has read is still so when it writes."""
    ledger.write(RECORD)
    monkeypatch.setattr(ledgers, "_LOCK_TIMEOUT", 0.2)
    changes = (lambda: ledger.write(replace(RECORD, keep=True)), lambda: ledger.forget("pl-1"))
    with Ledger(tmp_path / "instances").lock():
        for change in changes:
            with pytest.raises(HostError, match="has held the ledger"):
                change()
        assert ledger.read("pl-1") == RECORD
    with ledger.lock(), ledger.lock():  # who has it may take it again
        for change in changes:
            change()


def test_a_lock_that_one_thread_takes_another_may_release(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a generator that another thread closes; something may hold on to its frame."""
    monkeypatch.setattr(ledgers, "_LOCK_TIMEOUT", 0.2)
    make, made = filelock.FileLock, []

    def noted(*args: Any, **options: Any) -> filelock.BaseFileLock:
        made.append(make(*args, **options))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(filelock, "FileLock", noted)
        held = ledger.lock()
        held.__enter__()
    thread = threading.Thread(target=held.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert made
    with Ledger(tmp_path / "instances").lock():
        pass


def test_processes_that_change_one_record_lose_no_change(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(RECORD)
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from pytest_lima.ownership.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for _ in range(50):\n"
        "    with ledger.lock():\n"
        "        record = ledger.read('pl-1')\n"
        "        ledger.write(replace(record, recreated=record.recreated + 1))\n"
        "    ledger.note_phase('pl-1', 'at it'); ledger.clear_leftovers()\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "instances")]
    writers = [subprocess.Popen(argv) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    record = ledger.read("pl-1")
    assert record is not None and record.recreated == 150


def test_what_killed_processes_have_left_goes_and_nothing_else(
    ledger: Ledger, tmp_path: Path
) -> None:
    folder, living = tmp_path / "instances", f"{os.getpid()}-1"
    ledger.write(RECORD)
    ledger.join("run", MINE)
    gone = [f"pl-1.json.{living}.tmp", "pl-1.phase.4194304-1.tmp", "pl-2.phase", "mend-pl-2",
            "mend-pl-2.holder", "runs/run/7.4194304-1.tmp", "runs/old/4194304-1.0"]  # fmt: skip
    stays = ["pl-1.phase", "mend-pl-1", "mend-pl-1.holder", "pl-9.json", "create-0", "lock",
             f"pl-1.phase.{living}.tmp", "notes.txt", "mine.tmp"]  # fmt: skip
    for name in (*gone, *stays):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    dead = Identity(4194304, 1.0, MINE.host)
    (folder / gone[-1]).write_text(json.dumps(asdict(dead)))
    os.utime(folder / "runs" / "old", (1, 1))
    ledger.clear_leftovers()
    assert [name for name in gone if (folder / name).exists()] == []
    assert [name for name in stays if not (folder / name).exists()] == []
    assert ledger.members("run") == [MINE] and not (folder / "runs" / "old").exists()


def test_a_record_that_can_not_be_read_now_is_not_taken_for_none(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too many open files a VM would lose its record, and so its remover."""
    ledger.write(RECORD)

    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("pytest_lima.realfiles.read_text", refuse)
    with pytest.raises(HostError, match="the record of pl-1 can't be read") as caught:
        ledger.read("pl-1")
    assert "Too many open files" in str(caught.value)
    ledger.note_phase("pl-1", "booting")


def test_a_phase_that_can_not_be_noted_fails_no_boot(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.write(RECORD)
    write = Path.write_text

    def full(path: Path, text: str) -> int:
        write(path, "")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    ledger.note_phase("pl-1", "booting")
    with pytest.raises(OSError, match="No space left"):
        ledger.write(RECORD)
    assert list((tmp_path / "instances").glob("*.tmp")) == []  # nor is the half of it left


def test_who_joins_while_the_last_other_leaves_has_joined(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, other = paths.write_whole, Identity(1, 1.0, MINE.host)
    left: list[Identity] = []

    def late(path: Path, text: str) -> None:
        if not left:
            left.append(other)
            ledger.leave("run", other)
        write(path, text)

    monkeypatch.setattr(paths, "write_whole", late)
    ledger.join("run", MINE)
    assert ledger.joined("run") == [MINE]


def test_only_a_fresh_home_is_created_in_alone(ledger: Ledger, tmp_path: Path) -> None:
    fresh, used = tmp_path / "fresh", tmp_path / "used"
    for name in ("user.pub", "networks.yaml"):
        (used / "_config").mkdir(parents=True, exist_ok=True)
        (used / "_config" / name).touch()
    with ledger.first_create(used), ledger.first_create(used):
        pass  # side by side
    before = {path.name for path in (tmp_path / "instances").iterdir()}
    assert not before
    with ledger.first_create(fresh):
        assert any(path.name.startswith("create-") for path in (tmp_path / "instances").iterdir())
        shutil.copytree(used, fresh, dirs_exist_ok=True)
        # What was waited for has set it up.
        with Ledger(tmp_path / "instances").first_create(fresh):
            pass


def test_those_who_waited_for_the_first_create_go_side_by_side(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([False, True, False, True])
    monkeypatch.setattr(ledgers, "_is_set_up", lambda _: next(looks))
    monkeypatch.setattr(ledgers, "_CREATE_TIMEOUT", 0.2)
    with ledger.first_create(tmp_path), Ledger(tmp_path / "instances").first_create(tmp_path):
        pass


def test_members_are_the_living(ledger: Ledger) -> None:
    assert ledger.members("run") == []
    ledger.join("run", MINE)
    crashed = Identity(4194304, 1.0, MINE.host)
    ledger.join("run", crashed)
    assert set(ledger.joined("run")) == {MINE, crashed}
    assert ledger.members("run") == ledger.joined("run") == [MINE]
    ledger.leave("run", MINE)
    assert ledger.members("run") == []


def test_a_folder_that_is_not_ours_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "instances").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "instances")
    with pytest.raises(HostError, match="can't be used") as caught:
        Ledger(tmp_path / "instances")
    assert "XDG_STATE_HOME" in caught.value.remedy


@pytest.mark.parametrize("stop", [freeze_time, time_machine.travel], ids=["freezegun", "machine"])
def test_a_lock_is_not_waited_for_longer_where_time_stands_still(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Callable[..., Any]
) -> None:
    monkeypatch.setattr(ledgers, "_LOCK_TIMEOUT", 0.2)
    more = {"tick": False} if stop is time_machine.travel else {}
    with Ledger(tmp_path / "instances").lock(), stop("2001-01-01", **more):
        monkeypatch.setattr("time.sleep", lambda _: None)
        begun = realtime.monotonic()
        with pytest.raises(HostError, match="has held the ledger"), ledger.lock():
            pass
        assert 0.2 <= realtime.monotonic() - begun < 10


def test_its_lock_holds_off_the_threads_of_this_process_too(ledger: Ledger) -> None:
    inside: list[int] = []

    def alone(number: int) -> None:
        for _ in range(5):
            with ledger.lock():
                inside.append(number)
                time.sleep(0.001)
                assert inside == [number]
                inside.clear()

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(alone, number) for number in range(8)]:
            future.result(60)
