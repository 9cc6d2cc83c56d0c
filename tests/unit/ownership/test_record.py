"""Records, as stored and as judged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_lima.lima.identity import Identity, this_process
from pytest_lima.ownership import record as records
from pytest_lima.ownership.record import FAILED, READY, STARTING, Record

MINE = this_process()
DEAD = Identity(MINE.pid, MINE.started + 1, MINE.host)
RECORD = Record("pl-1", "/h", "/bin/limactl", "key", "run", MINE, MINE, leases=(MINE, DEAD),
                facts={"cpus": "2"}, idle=3.0)  # fmt: skip


def test_a_record_comes_back_as_it_was() -> None:
    assert records.from_text(records.to_text(RECORD)) == RECORD


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 1}, "version 1"),
        ({"version": 3}, "version 3"),
        ({"owner": None}, "damaged"),
        ({"owner": {"pid": "1", "started": 1, "host": ""}}, "damaged"),
        ({"leases": [{"pid": 1}]}, "damaged"),
        ({"name": 3}, "damaged"),
        ({"idle": "soon"}, "damaged"),
        ({"facts": []}, "damaged"),
        ({"unknown": 1}, "damaged"),
    ],
)
def test_anything_else_is_refused(change: dict[str, object], problem: str) -> None:
    text = json.dumps({**json.loads(records.to_text(RECORD)), **change})
    with pytest.raises(ValueError, match=problem):
        records.from_text(text)


def test_only_the_living_hold_it() -> None:
    assert RECORD.holders == (MINE,)
    assert RECORD.released(MINE).leases == ()
    assert replace(RECORD, leases=(DEAD,)).leased(MINE).leases == (MINE,)


@pytest.mark.parametrize(
    ("state", "starter", "claimable"),
    [(READY, DEAD, True), (STARTING, MINE, True), (STARTING, DEAD, False), (FAILED, MINE, False)],
)
def test_who_may_join(state: str, starter: Identity, claimable: bool) -> None:
    assert replace(RECORD, state=state, starter=starter).claimable == claimable
