"""What becomes of an instance of ours, and of one that could not be made, over the strict fake."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_lima.booted import Booted
from pytest_lima.errors import CleanupError, LimaError, StartError
from pytest_lima.lima import identity
from pytest_lima.lima.identity import this_process
from pytest_lima.ownership import making
from pytest_lima.ownership.failures import failure_of
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.pool import Pool
from pytest_lima.ownership.record import ENDING, FAILED
from pytest_lima.ownership.run import Run
from pytest_lima.ownership.sweep import Sweeper
from pytest_lima.settings import resolve
from pytest_lima.spec import machine_spec

if TYPE_CHECKING:
    from conftest import Recorder
    from fakelima.control import FakeLima


def test_a_reset_is_for_who_uses_it_alone(pool: Callable[..., Pool], fake_lima: FakeLima) -> None:
    one = pool()
    vm = one.acquire(machine_spec(template=fake_lima.template()))
    vm.write_text("mine", "mine")
    ledger, other = Ledger(), identity.of(os.getppid())
    record = ledger.read(vm.name)
    assert record is not None and other is not None
    ledger.write(record.leased(other))
    with pytest.raises(LimaError, match="1 other processes use it"):
        vm.reset()
    assert vm.read_text("mine") == "mine"
    ledger.write(record)
    vm.reset()
    assert vm.run("test -e mine", check=False).returncode == 1
    one.close()
    fake_lima.assert_clean()


@pytest.mark.parametrize("how", ["renewed", "reset"])
def test_one_that_can_not_be_removed_to_be_made_anew_holds_nobody(
    pool: Callable[..., Pool], fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    one = pool(recreate="1")
    vm = one.acquire(machine_spec(template=fake_lima.template()))
    if how == "renewed":
        fake_lima.crash(vm.name)

    def refuse(*_: object) -> None:
        raise CleanupError("it stays")

    with monkeypatch.context() as patch, pytest.raises(CleanupError, match="it stays"):
        patch.setattr("pytest_lima.ownership.removal.remove", refuse)
        one.renew(vm) if how == "renewed" else vm.reset()
    record = Ledger().read(vm.name)
    assert record is not None and record.state == FAILED
    one.close()
    fake_lima.assert_clean()


def test_a_full_disk_is_a_failure_that_is_told_to_others(
    pool: Callable[..., Pool], fake_lima: FakeLima, observer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[Booted] = []
    closed: list[Booted] = []
    close = Booted.close

    def noted(booted: Booted) -> None:
        closed.append(booted)
        close(booted)

    def full(booted: Booted) -> None:
        seen.append(booted)
        raise OSError(28, "No space left on device")

    run = Run("run", this_process(), "gw0", many=True)
    one = Pool(resolve({}, os.environ, {}), os.environ, observer, run=run)
    with monkeypatch.context() as patch, pytest.raises(StartError) as caught:
        patch.setattr("pytest_lima.ownership.making.write_state", full)
        patch.setattr(Booted, "close", noted)
        one.acquire(machine_spec(template=fake_lima.template()))
    assert "No space left on device" in str(caught.value)
    assert fake_lima.instances() == []
    assert closed == seen != []  # its limactl is ended, and collected
    [record] = Ledger().records()
    assert record.state == FAILED and str(failure_of(record)) == str(caught.value)
    one.close()
    fake_lima.assert_clean()


def test_a_disk_too_full_to_note_a_failure_keeps_nothing(
    pool: Callable[..., Pool], fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def fill(*_: object) -> None:
        monkeypatch.setattr(Ledger, "write", full)
        full()

    one = pool()
    monkeypatch.setattr("pytest_lima.ownership.making.write_state", fill)
    with pytest.raises(StartError, match="No space left"):
        one.acquire(machine_spec(template=fake_lima.template()))
    assert fake_lima.instances() == fake_lima.records() == []
    one.close()
    fake_lima.assert_clean()


def test_an_interrupt_is_nobody_elses_failure(
    pool: Callable[..., Pool], fake_lima: FakeLima, observer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    one = pool()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pytest_lima.ownership.making.write_state", interrupt)
        one.acquire(machine_spec(template=fake_lima.template()))
    assert fake_lima.records() == [] and fake_lima.instances() == []
    assert len(observer.all("failed")) == 1
    one.close()
    fake_lima.assert_clean()


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("step", ["creating", "booting", "being made ready"])
def test_one_that_is_pruned_while_it_is_made_fails_and_leaves_nothing(
    pool: Callable[..., Pool], fake_lima: FakeLima, observer: Recorder,
    monkeypatch: pytest.MonkeyPatch, step: str, done: bool,
) -> None:  # fmt: skip
    """By one who is done with that already, or isn't: what is made after it went goes too."""
    one, other = pool(), identity.of(os.getppid())
    assert other is not None

    def prune(*_: object) -> None:
        ledger = Ledger()
        for record in ledger.records():
            ledger.forget(record.name) if done else ledger.mark_ending(record, other)

    def phase(instance: str, now: str) -> None:
        if now == step:
            prune()

    monkeypatch.setattr(observer, "phase", phase)
    if step == "being made ready":
        write = making.write_state
        monkeypatch.setattr(making, "write_state", lambda booted: (write(booted), prune()))
    with pytest.raises(StartError, match="was removed while it was being started"):
        one.acquire(machine_spec(template=fake_lima.template()))
    assert fake_lima.instances() == fake_lima.processes() == []
    if not done:
        [record] = Ledger().records()
        assert (record.state, record.starter) == (ENDING, other)  # theirs to forget
        Ledger().forget(record.name)
    one.close()
    fake_lima.assert_clean()


def test_what_fails_because_it_is_pruned_says_so(
    pool: Callable[..., Pool], fake_lima: FakeLima, observer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def phase(instance: str, now: str) -> None:
        if now == "booting":
            Sweeper(Ledger(), os.environ, observer.warn).named([instance])

    monkeypatch.setattr(observer, "phase", phase)
    one = pool()
    with pytest.raises(StartError, match="was removed while it was being started"):
        one.acquire(machine_spec(template=fake_lima.template()))
    one.close()
    fake_lima.assert_clean()
