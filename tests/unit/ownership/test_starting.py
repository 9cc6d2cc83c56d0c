"""The seam between owning a machine and making it ready."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_lima.lima.identity import this_process
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import Record
from pytest_lima.ownership.starting import Noted

if TYPE_CHECKING:
    from conftest import Recorder


def test_who_waits_can_read_how_far_it_is(tmp_path: Path, observer: Recorder) -> None:
    mine = this_process()
    Ledger(tmp_path).write(Record("pl-1", "/h", "limactl", "key", "run", mine, mine))
    noted = Noted(observer, Ledger(tmp_path))
    noted.phase("pl-1", "booting")
    noted.phase("pl-1", "waiting for cloud-init")
    assert Ledger(tmp_path).phase("pl-1") == "waiting for cloud-init"
    assert Ledger(tmp_path).phase("pl-2") == ""
    assert observer.all("phase") == ["booting", "waiting for cloud-init"]


def test_everything_else_is_passed_on(tmp_path: Path, observer: Recorder) -> None:
    noted = Noted(observer, Ledger(tmp_path))
    noted.tick("a line")
    noted.ready("pl-1", 3.0)
    noted.failed("pl-1")
    noted.warn("mind this")
    assert observer.told == [
        ("tick", "a line"), ("ready", "pl-1"), ("failed", "pl-1"), ("warn", "mind this"),
    ]  # fmt: skip
