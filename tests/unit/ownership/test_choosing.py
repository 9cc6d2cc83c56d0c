"""Which of the instances that are there is joined, by their records."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pytest_lima.lima import identity
from pytest_lima.lima.identity import Identity, this_process
from pytest_lima.ownership.choosing import Wanted, choose
from pytest_lima.ownership.record import ENDING, FAILED, READY, STARTING, Record
from pytest_lima.ownership.run import Run
from pytest_lima.settings import Settings

ME = this_process()
OTHER = identity.of(os.getppid()) or ME
RUN = Run("run", ME, "gw0", many=True)
REUSE = Settings(reuse=True)


def record(name: str, **values: object) -> Record:
    one = Record(name, "/h", "/bin/limactl", "key", "run", ME, ME, leases=(ME,), state=READY,
                 shared=True)  # fmt: skip
    return replace(one, **values)  # type: ignore[arg-type]


def chosen(*records: Record, run: Run = RUN, settings: Settings | None = None, most: int = 2):
    found = choose(records, Wanted("key", "/h", most, run, settings or Settings(), ME))
    return found and found.name


def test_of_the_own_run_a_ready_one_comes_first() -> None:
    assert chosen() is None
    assert chosen(record("a", state=STARTING)) == "a"
    assert chosen(record("a", state=STARTING), record("b")) == "b"


@pytest.mark.parametrize(
    "values", [{"key": "other"}, {"home": "/other"}, {"shared": False}, {"state": ENDING}]
)
def test_none_of_another_kind_is(values: dict[str, object]) -> None:
    assert chosen(record("a", **values)) is None


def test_another_run_s_is_where_both_are_for_reuse() -> None:
    theirs = record("a", run="other", reuse=True)
    assert chosen(theirs) is None
    assert chosen(theirs, settings=REUSE) == "a"
    assert chosen(replace(theirs, reuse=False), settings=REUSE) is None


def test_another_container_s_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Identity, "elsewhere", True)
    assert chosen(record("a", run="other", reuse=True), settings=REUSE) is None


def test_a_failure_of_another_worker_is_told() -> None:
    failed = record("a", state=FAILED, starter=OTHER)
    assert chosen(failed) == "a"
    assert chosen(replace(failed, starter=ME)) is None  # ours: it is tried again
    assert chosen(replace(failed, run="other", reuse=True), settings=REUSE) is None
    assert chosen(failed, record("b")) == "b"


def test_workers_with_one_each_share_where_there_are_no_more() -> None:
    each = Settings(share="worker")
    used, less = record("a", leases=(ME, OTHER)), record("b", leases=(OTHER,))
    assert chosen(used, settings=each) is None
    assert chosen(used, less, settings=each) == "b"
    assert chosen(used, record("mine"), settings=each) == "mine"
    assert chosen(used, settings=each, run=replace(RUN, many=False)) == "a"


def test_what_another_worker_has_stopped_is_not_started_again_by_its_run() -> None:
    stop = Settings(share="worker", teardown="stop")
    kept = record("a", leases=(), keep=True)
    assert chosen(kept, settings=stop) is None
    assert chosen(replace(kept, state=STARTING), settings=stop) is None
    assert chosen(kept, settings=Settings(share="worker", keep="always")) == "a"
    failed = replace(kept, state=FAILED, starter=OTHER)
    assert chosen(failed, settings=Settings(teardown="stop", keep="on-failure")) == "a"
