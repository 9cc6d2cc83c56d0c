"""Which records may be ended, by owner, users, time and place."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.errors import HostError
from pytest_lima.lima import identity
from pytest_lima.lima.identity import this_host, this_process
from pytest_lima.ownership import ledger as ledgers
from pytest_lima.ownership import removal, sweep
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import ENDING, FAILED, READY, STARTING, Record
from pytest_lima.ownership.sweep import Sweeper, seconds_until_idle

MINE = this_process()
DEAD = replace(MINE, started=MINE.started + 1)
ELSEWHERE = replace(MINE, host=f"{this_host().split()[0]} pid:[1]")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def sweeper(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Sweeper:
    monkeypatch.setattr(removal, "remove", lambda limactl, name, warn: None)
    return Sweeper(ledger, os.environ, lambda message: None)


@pytest.fixture
def record(short_path: Path) -> Record:
    return Record("pl-1", str(short_path), "/bin/limactl", "key", "run", DEAD, DEAD, state=READY)


@pytest.mark.parametrize(
    ("changes", "swept"),
    [
        ({}, True),
        ({"owner": MINE}, False),
        ({"leases": (MINE,)}, False),
        ({"leases": (DEAD,)}, True),
        ({"state": STARTING}, True),
        ({"state": FAILED}, True),
        ({"state": ENDING}, True),
        ({"state": ENDING, "starter": MINE}, False),
        ({"keep": True, "idle": 86400.0, "used": time.time()}, False),
        ({"keep": True, "idle": 60.0, "used": 1.0}, True),
        ({"keep": True, "idle": 60.0, "used": 1.0, "leases": (MINE,)}, False),
        ({"keep": True, "used": 1.0}, False),
        # Killed while it was started again, or stopped; and somebody who lives is at that.
        ({"keep": True, "state": STARTING}, True),
        ({"keep": True, "state": STARTING, "leases": (MINE,)}, False),
        ({"keep": True, "state": STARTING, "starter": MINE}, False),
        ({"keep": True, "idle": 0.1, "state": STARTING, "starter": MINE, "used": 1.0}, False),
        ({"owner": ELSEWHERE}, True),
        ({"owner": ELSEWHERE, "state": STARTING, "used": time.time()}, False),
        ({"owner": ELSEWHERE, "state": STARTING, "used": 1.0}, True),
    ],
)
def test_who_is_swept(
    ledger: Ledger, sweeper: Sweeper, record: Record, changes: dict[str, object], swept: bool
) -> None:
    (Path(record.home) / record.name).mkdir()
    ledger.write(replace(record, **changes))  # type: ignore[arg-type]
    assert list(sweeper.orphans()) == (["pl-1"] if swept else [])
    assert (ledger.read("pl-1") is None) is swept


@pytest.mark.parametrize(
    ("changes", "exists", "why"),
    [
        ({}, True, "which a killed run had left"),
        ({"state": ENDING, "keep": True}, True, "which a killed run had left"),
        ({"keep": True, "idle": 1800.0}, True, "which nobody had used for 1800 s"),
        ({"keep": True}, False, "which somebody had deleted"),
    ],
)
def test_why_it_was_swept(
    ledger: Ledger, sweeper: Sweeper, record: Record, changes: dict[str, object],
    exists: bool, why: str,
) -> None:  # fmt: skip
    if exists:
        (Path(record.home) / record.name).mkdir()
    ledger.write(replace(record, **changes))  # type: ignore[arg-type]
    assert sweeper.orphans() == {"pl-1": why}


def test_a_run_with_members_may_yet_want_it(
    ledger: Ledger, sweeper: Sweeper, record: Record
) -> None:
    ledger.write(record)
    ledger.join("run", MINE)
    assert sweeper.orphans() == {}
    ledger.leave("run", MINE)
    assert list(sweeper.orphans()) == ["pl-1"]


def test_a_kept_one_that_was_deleted_by_hand_is_forgotten(
    ledger: Ledger, sweeper: Sweeper, record: Record
) -> None:
    ledger.write(replace(record, keep=True))
    assert list(sweeper.orphans()) == ["pl-1"]


@pytest.fixture
def living_agent(record: Record) -> Iterator[None]:
    folder = Path(record.home) / record.name
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(folder / "ha.sock"))
        agent.listen()
        yield


@pytest.mark.usefixtures("living_agent")
def test_what_lives_in_another_container_stays_even_if_it_is_named(
    ledger: Ledger, sweeper: Sweeper, record: Record
) -> None:
    ledger.write(replace(record, owner=ELSEWHERE))
    assert not sweeper.orphans()
    assert not sweeper.named(["pl-1"])


def test_others_are_asked_before_the_lock_is_taken_and_records_marked_under_it(
    ledger: Ledger, sweeper: Sweeper, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_LOCK_TIMEOUT", 0.2)
    ledger.write(replace(record, owner=ELSEWHERE))
    marked, mark = [], Ledger.mark_ending

    def asked(folder: Path) -> bool:
        with Ledger(ledger._folder).lock():  # it may take two seconds
            return False

    def seen(self: Ledger, record: Record, starter: object) -> Record:
        with pytest.raises(HostError, match="has held"), Ledger(ledger._folder).lock():
            pass
        marked.append(record.name)
        return mark(self, record, MINE)

    monkeypatch.setattr(sweep, "agent_answers", asked)
    monkeypatch.setattr(Ledger, "mark_ending", seen)
    assert list(sweeper.orphans()) == marked == ["pl-1"]


def test_one_that_is_used_elsewhere_since_it_was_asked_stays(
    ledger: Ledger, sweeper: Sweeper, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.write(replace(record, owner=ELSEWHERE))

    def joined(folder: Path) -> bool:
        ledger.write(replace(record, owner=ELSEWHERE, leases=(ELSEWHERE,)))
        return False

    monkeypatch.setattr(sweep, "agent_answers", joined)
    assert not sweeper.orphans()


def test_one_that_another_begins_to_remove_is_forgotten_by_that_one(
    ledger: Ledger, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pytest-lima prune --all` beside a run that ends, for one."""
    alive = identity.of(os.getppid())
    assert alive is not None
    theirs = replace(record, state=ENDING, starter=alive)
    monkeypatch.setattr(removal, "remove", lambda *_: ledger.write(theirs))
    ledger.write(record)
    assert list(Sweeper(ledger, os.environ, lambda _: None).orphans()) == ["pl-1"]
    assert ledger.read("pl-1") == theirs


def test_one_that_can_not_be_removed_keeps_its_record_and_not_the_others(
    ledger: Ledger, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def refuse(limactl: object, name: str, warn: object) -> None:
        if name == "pl-1":
            raise OSError("no")

    monkeypatch.setattr(removal, "remove", refuse)
    ledger.write(record)
    ledger.write(replace(record, name="pl-2"))
    assert Sweeper(ledger, os.environ, told.append).orphans().keys() == {"pl-2"}
    assert told == ["pl-1 could not be removed: no"]
    assert [one.name for one in ledger.records()] == ["pl-1"]


def test_a_full_disk_does_not_keep_what_would_make_room(
    ledger: Ledger, sweeper: Sweeper, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.write(record)
    ledger.write(replace(record, name="pl-2"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytest_lima.lima.paths.write_whole", full)
    assert sweeper.orphans().keys() == {"pl-1", "pl-2"}
    assert ledger.records() == []


def test_the_next_to_be_idle(record: Record) -> None:
    now = time.time()
    kept = [replace(record, keep=True, idle=idle, used=now) for idle in (50.0, 20.0, None)]
    seconds = seconds_until_idle(kept)
    assert seconds is not None
    assert 15 < seconds <= 20
    assert seconds_until_idle([record, kept[2]]) is None
    late = replace(kept[0], used=1.0)
    assert seconds_until_idle([late]) == 0.0
    # What is in use is looked at now and then, what isn't ours to end not at all.
    assert seconds_until_idle([replace(late, leases=(MINE,))]) == math.inf
    assert seconds_until_idle([replace(late, leases=(MINE,)), kept[0]]) == pytest.approx(50, abs=5)
    assert seconds_until_idle([replace(late, owner=ELSEWHERE)]) is None
    assert seconds_until_idle([replace(late, state=ENDING)]) is None
