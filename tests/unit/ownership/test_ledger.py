from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.errors import HostError
from pytest_lima.ownership import ledger as module
from pytest_lima.ownership.ledger import Ledger, Owner, Record, this_process


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "instances")


def record(name: str = "pl-1", **changes: object) -> Record:
    return replace(
        Record(name, "/home/ann/.pytest-lima", "/usr/bin/limactl", "key", this_process()),
        **changes,  # type: ignore[arg-type]
    )


def dead() -> Owner:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return replace(this_process(), pid=pid)


def test_records_are_there_for_every_later_run(ledger, tmp_path) -> None:
    assert ledger.records() == []
    ledger.write(record("pl-2"))
    ledger.write(record("pl-1"))
    again = Ledger(tmp_path / "state" / "instances")
    assert again.records() == [record("pl-1"), record("pl-2")]
    again.forget("pl-1")
    again.forget("pl-1")
    assert ledger.records() == [record("pl-2")]
    assert stat.S_IMODE((tmp_path / "state" / "instances").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "changes",
    [{}, {"pid": 2**22 + 1}, {"started": 1.0}, {"boot_id": "another"}],
    ids=["itself", "no-such-pid", "pid-of-another", "before-the-hosts-reboot"],
)
def test_an_owner_is_alive_if_it_is_that_very_process(changes) -> None:
    assert replace(this_process(), **changes).alive() is (changes == {})


def test_orphans_are_those_of_dead_owners_that_nobody_wanted_to_keep(ledger) -> None:
    ledger.write(record("pl-live"))
    ledger.write(record("pl-dead", owner=dead()))
    ledger.write(record("pl-kept", owner=dead()))
    ledger.keep("pl-kept")
    ledger.keep("pl-unknown")
    assert [one.name for one in ledger.orphans()] == ["pl-dead"]
    assert {one.name for one in ledger.records()} == {"pl-live", "pl-dead", "pl-kept"}


def test_what_is_no_record_is_left_alone(ledger, tmp_path) -> None:
    folder = tmp_path / "state" / "instances"
    texts = ["", "{", "[]", "null", "{}", json.dumps({"version": 99, "name": "pl-9"})]
    for number, text in enumerate(texts):
        (folder / f"pl-{number}.json").write_text(text)
    (folder / "pl-half.tmp").write_text("{")
    assert ledger.orphans() == ledger.records() == []
    assert len(list(folder.iterdir())) == len(texts) + 1


def test_the_lock_is_one_at_a_time_and_ends_with_an_error(ledger, tmp_path, monkeypatch) -> None:
    other = Ledger(tmp_path / "state" / "instances")
    order: list[str] = []

    def wait() -> None:
        with other.lock():
            order.append("other")

    waiter = threading.Thread(target=wait)
    with pytest.raises(ZeroDivisionError), ledger.lock():
        waiter.start()
        waiter.join(0.3)
        order.append("first")
        raise ZeroDivisionError
    waiter.join(10)
    assert order == ["first", "other"]

    monkeypatch.setattr(module, "_LOCK_TIMEOUT", 0.1)
    with ledger.lock(), pytest.raises(HostError, match="fuser"), other.lock():
        pytest.fail("it is held")
