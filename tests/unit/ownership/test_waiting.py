"""Waiting for what another process starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lima.errors import ReadyTimeoutError
from pytest_lima.lima.identity import this_process
from pytest_lima.lima.limactl import Limactl
from pytest_lima.observer import Observer
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import Record
from pytest_lima.ownership.run import Run
from pytest_lima.ownership.waiting import await_ready
from pytest_lima.settings import Settings

RUN = Run("run", this_process(), "gw0", many=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture
def claims(ledger: Ledger) -> Claims:
    return Claims(ledger, Settings(), RUN)


def take(claims: Claims) -> Record:
    return claims.take("key", {}, Limactl("/bin/limactl", Path("/h"), {}, {}), 9)[0]


def test_it_ends_when_the_starter_dies(ledger, claims, other) -> None:
    record = other.do(Settings(), RUN, take)
    joined = take(claims)
    assert joined.name == record.name
    other.die()
    assert not await_ready(joined, 5, ledger, claims, Observer())
    assert ledger.read(record.name).holders == ()


def test_it_has_a_limit_and_names_whom_it_waited_for(ledger, claims, other) -> None:
    other.do(Settings(), RUN, take)
    joined = take(claims)
    with pytest.raises(ReadyTimeoutError, match=f"process {other.identity.pid} has been") as caught:
        await_ready(joined, 0.2, ledger, claims, Observer())
    assert "time.sleep(60)" in str(caught.value)


def test_it_ends_when_it_is_ready_and_tells_how_far_it_is(ledger, claims, other, observer) -> None:
    record = other.do(Settings(), RUN, take)
    joined = take(claims)
    ledger.note_phase(record.name, "booting")
    with pytest.raises(ReadyTimeoutError):
        await_ready(joined, 0.0, ledger, claims, observer)
    assert observer.all("phase") == ["waiting for gw0: booting"]
    other.do(Settings(), RUN, lambda one: one.ready(record.name))
    assert await_ready(take(claims), 5, ledger, claims, observer)
