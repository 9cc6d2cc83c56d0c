"""The ledger's files, locks and members."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.errors import HostError
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
    assert [path.name for path in (tmp_path / "instances").iterdir()] == ["pl-2.json"]


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
