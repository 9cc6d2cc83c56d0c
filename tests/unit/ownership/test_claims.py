"""Who starts, joins, waits and is the last out, seen from several processes at once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.errors import LimaError, ProvisionError, StartError
from pytest_lima.lima import identity
from pytest_lima.lima.identity import Identity, this_process
from pytest_lima.lima.limactl import Limactl
from pytest_lima.observer import Observer
from pytest_lima.ownership.claims import DELETE, KEEP, SHARED, STOP, Claims
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import ENDING, FAILED, READY, STARTING
from pytest_lima.ownership.run import Run
from pytest_lima.ownership.waiting import await_ready
from pytest_lima.settings import Settings

LIMACTL = Limactl("/bin/limactl", Path("/h"), {}, {})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def run_of(owner: Identity | None = None, *, many: bool = True, id_: str = "run") -> Run:
    return Run(id_, owner or this_process(), "gw0", many=many)


def take(claims: Claims, most: int = 9):
    return claims.take("key", {"cpus": "2"}, LIMACTL, most)


def test_the_first_starts_and_the_second_joins(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, ours = take(claims)
    assert ours
    assert record.state == STARTING
    joined, theirs = other.do(Settings(), run_of(), take)
    assert not theirs
    assert joined.name == record.name
    assert set(joined.leases) == {this_process(), other.identity}


def test_a_dead_starter_s_is_not_joined(ledger, other) -> None:
    record, _ = other.do(Settings(), run_of(), take)
    other.die()
    again, ours = take(Claims(ledger, Settings(), run_of()))
    assert ours
    assert again.name != record.name


def test_another_run_s_is_joined_for_reuse_only(ledger, other) -> None:
    theirs, _ = other.do(Settings(reuse=True), run_of(id_="a", many=False), take)
    assert take(Claims(ledger, Settings(), run_of(id_="b", many=False)))[1]
    joined, ours = take(Claims(ledger, Settings(reuse=True), run_of(id_="c", many=False)))
    assert (joined.name, ours) == (theirs.name, False)


def test_each_worker_s_own_up_to_a_number(ledger, other) -> None:
    settings = Settings(share="worker")
    claims = Claims(ledger, settings, run_of())
    first, ours = take(claims, 2)
    second, theirs = other.do(settings, run_of(), lambda one: take(one, 2))
    assert ours
    assert theirs
    assert first.name != second.name
    # Whoever comes now shares the one with fewer users.
    ledger.write(replace(ledger.read(first.name), state=READY))
    ledger.write(replace(ledger.read(second.name), state=READY, leases=(other.identity,) * 1))
    third, new = Claims(ledger, settings, run_of()).take("key", {}, LIMACTL, 2)
    assert not new
    assert third.name == first.name


def test_the_last_out_ends_it(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of(many=False))
    record, _ = take(claims)
    claims.ready(record.name)
    ledger.write(ledger.read(record.name).leased(other.identity))
    assert claims.release(record.name, failed=False) == SHARED
    assert other.do(Settings(), run_of(many=False),
                    lambda one: one.release(record.name, failed=False)) == DELETE  # fmt: skip
    assert ledger.read(record.name).state == ENDING
    assert claims.release(record.name, failed=False) == SHARED  # it is the other's to delete


def test_who_may_yet_want_it_keeps_it_alive(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    ledger.join("run", this_process())
    ledger.join("run", other.identity)
    assert claims.release(record.name, failed=False) == SHARED
    assert [one.name for one in claims.of_run()] == [record.name]
    other.die()
    assert claims.release(record.name, failed=False) == DELETE


def test_a_crashed_worker_s_is_left_for_its_replacement_and_the_controller(ledger, other) -> None:
    controller = identity.of(os.getppid())
    claims = Claims(ledger, Settings(), run_of(controller))
    record, _ = take(claims)
    claims.ready(record.name)
    ledger.join("run", other.identity)
    other.die()
    assert claims.release(record.name, failed=False) == SHARED
    assert [one.name for one in claims.of_run()] == [record.name]


@pytest.mark.parametrize(
    ("settings", "failed", "decision"),
    [
        (Settings(), True, DELETE),
        (Settings(keep="always"), False, KEEP),
        (Settings(keep="on-failure"), False, DELETE),
        (Settings(keep="on-failure"), True, KEEP),
        (Settings(teardown="stop"), False, STOP),
        (Settings(reuse=True), False, KEEP),
        (Settings(reuse=True, sources={"keep": "command line"}), False, DELETE),
    ],
)
def test_what_is_kept(ledger, settings, failed, decision) -> None:
    claims = Claims(ledger, settings, run_of(many=False))
    record, _ = take(claims)
    claims.ready(record.name)
    assert claims.release(record.name, failed=failed) == decision
    assert ledger.read(record.name).keep is (decision in (KEEP, STOP))
    assert ledger.read(record.name).idle == (
        1800.0 if decision == KEEP and settings.reuse else None
    )


def test_one_worker_s_failed_test_counts_for_the_last_out(ledger, other) -> None:
    settings = Settings(keep="on-failure")
    claims = Claims(ledger, settings, run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    ledger.write(ledger.read(record.name).leased(other.identity))
    assert claims.release(record.name, failed=True) == SHARED
    assert other.do(settings, run_of(), lambda one: one.release(record.name, failed=False)) == KEEP


def test_a_failure_reaches_those_who_wait_and_those_who_come_later(ledger, other) -> None:
    theirs = run_of()
    record, _ = other.do(Settings(), theirs, take)
    claims = Claims(ledger, Settings(), run_of())
    joined, _ = take(claims)
    error = ProvisionError("it failed", ran="x", seen="y", remedy="z", log="/log")
    assert other.do(Settings(), theirs, lambda one: one.failed(record.name, error)) == DELETE
    with pytest.raises(ProvisionError) as caught:
        await_ready(joined, 5, ledger, claims, Observer())
    assert str(caught.value) == str(error)
    other.do(Settings(), theirs, lambda one: one.settle(record.name))
    later, ours = take(claims)
    assert (later.state, ours) == (FAILED, False)


def test_alone_a_failure_leaves_nothing(ledger) -> None:
    claims = Claims(ledger, Settings(), run_of(many=False))
    record, _ = take(claims)
    claims.failed(record.name, StartError("no"))
    claims.settle(record.name)
    assert ledger.records() == []


def test_a_dead_vm_is_made_anew_by_one_and_only_so_often(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    assert not claims.take_over(record.name, dead=False)
    assert claims.take_over(record.name, dead=True, most=1)
    assert not other.do(Settings(), run_of(),
                        lambda one: one.take_over(record.name, dead=True, most=1))  # fmt: skip
    claims.ready(record.name)
    assert not claims.take_over(record.name, dead=True, most=1)
    assert not claims.take_over("pl-none", dead=True)


def test_it_is_begun_anew_by_who_has_it_alone(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    shared = ledger.read(record.name).leased(other.identity)
    removed = replace(ledger.read(record.name), state=ENDING, starter=other.identity)
    for others in (shared, removed):
        ledger.write(others)
        with pytest.raises(LimaError, match="can't be reset: 1 other processes use it"):
            claims.begin_anew(record.name, "reset", {}, LIMACTL)
        assert ledger.read(record.name) == others
    other.die()
    for state in (READY, FAILED, ENDING):
        ledger.write(replace(shared, state=state, starter=other.identity, failure={"what": "no"}))
        claims.begin_anew(record.name, "reset", {}, LIMACTL)
        assert ledger.read(record.name) == replace(record, label="gw0")


def test_who_comes_while_it_is_begun_anew_may_wait_for_it(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    claims.begin_anew(record.name, "reset", {}, LIMACTL)
    joined, ours = other.do(Settings(), run_of(), take)
    assert (joined.name, joined.state, ours) == (record.name, STARTING, False)


def test_what_is_begun_anew_after_it_was_lost_is_nobody_else_s(ledger, other) -> None:
    claims = Claims(ledger, Settings(reuse=True), run_of())
    record, _ = take(claims)
    ledger.forget(record.name)
    claims.begin_anew(record.name, "reset", {"cpus": "2"}, LIMACTL)
    anew = ledger.read(record.name)
    assert (anew.state, anew.starter, anew.leases) == (STARTING, this_process(), (this_process(),))
    assert (anew.owner, anew.home, anew.facts) == (record.owner, record.home, record.facts)
    assert other.do(Settings(reuse=True), run_of(), take)[1]


def test_one_that_is_being_stopped_is_waited_for(ledger, other) -> None:
    settings = Settings(teardown="stop", reuse=True)
    claims = Claims(ledger, settings, run_of(many=False, id_="a"))
    record, _ = take(claims)
    claims.ready(record.name)
    assert claims.release(record.name, failed=False) == STOP
    joined, theirs = other.do(settings, run_of(many=False, id_="b"), take)
    assert (joined.name, theirs) == (record.name, False)
    assert joined.state == STARTING and joined.claimable
    claims.stopped(record.name)
    assert ledger.read(record.name).state == READY


def test_one_whose_stopping_was_interrupted_is_stopped_again(ledger) -> None:
    claims = Claims(ledger, Settings(teardown="stop"), run_of(many=False))
    record, _ = take(claims)
    claims.ready(record.name)
    assert claims.release(record.name, failed=False) == STOP
    assert claims.release(record.name, failed=False) == STOP
    ledger.write(replace(ledger.read(record.name), state=ENDING))  # pytest-lima prune --all
    claims.stopped(record.name)
    assert ledger.read(record.name).state == ENDING


def test_one_that_is_removed_while_it_is_started_is_not_made_ready(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    removed = replace(record, state=ENDING, starter=other.identity)
    ledger.write(removed)
    with pytest.raises(StartError, match="was removed while it was being started") as caught:
        claims.ready(record.name)
    assert f"process {other.identity.pid} " in str(caught.value)
    # Nor do we take it from who removes it, nor forget it behind its back.
    assert claims.failed(record.name, caught.value) == DELETE
    claims.settle(record.name)
    assert ledger.read(record.name) == removed
    ledger.forget(record.name)
    with pytest.raises(StartError, match="was removed"):
        claims.ready(record.name)
    assert ledger.records() == []


def test_where_its_remover_has_died_we_go_on_with_that(ledger, other) -> None:
    claims = Claims(ledger, Settings(keep="always"), run_of())
    record, _ = take(claims)
    ledger.write(replace(record, state=ENDING, starter=other.identity))
    other.die()
    assert claims.failed(record.name, StartError("no")) == DELETE
    left = ledger.read(record.name)
    assert (left.state, left.starter) == (ENDING, this_process())
    claims.settle(record.name)
    assert ledger.records() == []


def test_a_lease_that_is_taken_back_brings_no_record_back(ledger, other, monkeypatch) -> None:
    """Who drops one holds the lock from the reading to the writing, and who forgets waits."""
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    monkeypatch.setattr("pytest_lima.ownership.ledger._LOCK_TIMEOUT", 0.2)
    read, tried = Ledger.read, []

    def slow(self: Ledger, name: str):
        found = read(self, name)
        if self is ledger and not tried:
            tried.append(name)
            with pytest.raises(LimaError, match="has held the ledger"):
                Ledger(ledger._folder).forget(name)
        return found

    monkeypatch.setattr(Ledger, "read", slow)
    claims.drop(record.name)
    assert tried == [record.name]
    Ledger(ledger._folder).forget(record.name)
    claims.drop(record.name)
    assert ledger.records() == []


def test_who_comes_while_it_stands_still_waits(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    with claims.standing_still(record.name, "kept"):
        joined, ours = other.do(Settings(), run_of(), take)
        assert (joined.name, joined.state, ours) == (record.name, STARTING, False)
        assert joined.claimable
    assert ledger.read(record.name).state == READY
    with pytest.raises(LimaError, match="can't be kept: 1 other processes use it") as caught:
        claims.standing_still(record.name, "kept").__enter__()
    assert f"process {other.identity.pid}: " in str(caught.value)
    assert ledger.read(record.name).state == READY


def test_one_that_is_removed_while_it_stands_still_stays_so(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    with pytest.raises(LimaError, match="no room"), claims.standing_still(record.name, "kept"):
        ledger.write(replace(record, state=ENDING, starter=other.identity))
        raise LimaError("no room")
    assert ledger.read(record.name).state == ENDING


def test_a_boot_that_failed_counts_for_what_is_kept(ledger) -> None:
    claims = Claims(ledger, Settings(keep="on-failure"), run_of(many=False))
    record, _ = take(claims)
    assert claims.failed(record.name, StartError("no")) == KEEP
    assert ledger.read(record.name).failed


def test_who_is_at_it_may_begin_again_and_nobody_else(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    for _ in range(2):  # the first was interrupted
        assert claims.take_over(record.name, dead=True)
    assert not other.do(Settings(), run_of(), lambda one: one.take_over(record.name, dead=True))
    assert ledger.read(record.name).starter == this_process()


def test_what_another_has_made_anew_since_one_looked_is_not_taken(ledger, other) -> None:
    claims = Claims(ledger, Settings(), run_of())
    record, _ = take(claims)
    claims.ready(record.name)
    seen = ledger.read(record.name)
    for again in (lambda one: one.take_over(record.name, dead=True, seen=seen, most=9),
                  lambda one: one.ready(record.name)):  # fmt: skip
        other.do(Settings(), run_of(), again)
    assert not claims.take_over(record.name, dead=True, seen=seen, most=9)
    assert claims.take_over(record.name, dead=True, seen=ledger.read(record.name), most=9)


def test_one_that_another_stops_is_left_to_it(ledger, other) -> None:
    """At the end of a run, the controller's look at its records may be older than that."""
    settings = Settings(teardown="stop")
    record, _ = other.do(settings, run_of(), take)
    other.do(settings, run_of(), lambda one: one.ready(record.name))
    stop = other.do(settings, run_of(), lambda one: one.release(record.name, failed=False))
    assert stop == STOP
    claims = Claims(ledger, settings, run_of())
    assert claims.release(record.name, failed=False) == SHARED
    other.die()
    assert claims.release(record.name, failed=False) != SHARED
