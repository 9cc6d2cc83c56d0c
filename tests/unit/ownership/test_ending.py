"""Giving an instance back, with a limactl that notes what it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.errors import CleanupError
from pytest_lima.lima import identity
from pytest_lima.lima.identity import this_process
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.ending import Ending
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import READY, STARTING, Record
from pytest_lima.ownership.run import Run
from pytest_lima.settings import Settings

MINE = this_process()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def record(short_path: Path, tool: Callable[..., Path], ledger: Ledger) -> Record:
    (short_path / "pl-1").mkdir()
    (short_path / "pl-1" / "lima.yaml").touch()
    limactl = tool("limactl", f'echo "$*" >>{short_path}/calls\n'
                   'case "$*" in *delete*) rm -r "$LIMA_HOME/pl-1" ;; esac')  # fmt: skip
    one = Record("pl-1", str(short_path), str(limactl), "key", "run", MINE, MINE, state=READY,
                 leases=(MINE,), shared=True, reuse=True)  # fmt: skip
    ledger.write(one)
    return one


@pytest.fixture
def calls(short_path: Path) -> Callable[[], str]:
    return lambda: (short_path / "calls").read_text() if (short_path / "calls").exists() else ""


@pytest.fixture
def ending(ledger: Ledger) -> Callable[..., Ending]:
    def make(**settings: object) -> Ending:
        chosen = Settings(**settings)  # type: ignore[arg-type]
        claims = Claims(ledger, chosen, Run("run", MINE))
        return Ending(ledger, claims, chosen, os.environ, lambda message: None)

    return make


def test_the_last_one_deletes_it(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], calls: Callable[[], str]
) -> None:
    one = ending()
    one.give_back("pl-1", None, failed=False)
    assert "delete --force pl-1" in calls()
    assert ledger.read("pl-1") is None and one.kept == []


def test_while_another_uses_it_it_stays(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], calls: Callable[[], str]
) -> None:
    alive = identity.of(os.getppid())
    assert alive is not None
    ledger.write(replace(record, leases=(MINE, alive)))
    ending().give_back("pl-1", None, failed=False)
    assert calls() == ""
    left = ledger.read("pl-1")
    assert left is not None and left.leases == (alive,)


def test_a_kept_one_says_how_to_get_in_and_how_to_delete_it(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], calls: Callable[[], str]
) -> None:
    one = ending(keep="on-failure", idle=90.0)
    one.give_back("pl-1", None, failed=True)
    [kept] = one.kept
    prefix = f"LIMA_HOME={record.home} {record.limactl}"
    assert kept.enter == f"{prefix} shell pl-1"
    assert kept.delete == f"{prefix} delete --force pl-1"
    assert kept.idle == 90.0
    assert calls() == ""
    left = ledger.read("pl-1")
    assert left is not None and left.keep and left.leases == ()
    # The controller, at the end, has the same to tell, and leaves it alone.
    assert one.kept_by_run() == [kept]
    one.finish_run()
    assert ledger.read("pl-1") is not None


def test_one_that_is_to_be_stopped_is(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], calls: Callable[[], str]
) -> None:
    one = ending(teardown="stop")
    one.give_back("pl-1", None, failed=False)
    assert "stop pl-1" in calls() and "delete" not in calls()
    assert [kept.name for kept in one.kept] == ["pl-1"]
    left = ledger.read("pl-1")
    assert left is not None and (left.state, left.keep) == (READY, True)


def test_nobody_joins_one_that_is_being_stopped(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stop(limactl: object, name: str, timeout: float) -> None:
        seen.append((ledger.read(name), ledger.phase(name)))
        raise CleanupError("it does not stop")

    monkeypatch.setattr("pytest_lima.lima.limactl.Limactl.stop", stop)
    with pytest.raises(CleanupError, match="it does not stop"):
        ending(teardown="stop").give_back("pl-1", None, failed=False)
    [(during, phase)] = seen
    assert during is not None
    assert (during.state, during.starter, during.keep) == (STARTING, MINE, True)
    assert phase == "stopping"
    # It runs on, for whoever comes or prunes.
    left = ledger.read("pl-1")
    assert left is not None and (left.state, left.keep) == (READY, True)


def test_what_a_killed_worker_had_goes_at_the_end_of_the_run(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], calls: Callable[[], str]
) -> None:
    ledger.write(replace(record, leases=(replace(MINE, started=MINE.started + 1),)))
    ending().finish_run()
    assert "delete --force pl-1" in calls()
    assert ledger.read("pl-1") is None


def test_at_the_end_of_the_run_one_that_stays_does_not_keep_the_others(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(MINE, started=MINE.started + 1)
    for name in ("pl-0", "pl-1", "pl-2"):
        ledger.write(replace(record, name=name, leases=(gone,)))

    def remove(limactl: object, name: str, warn: object) -> None:
        if name == "pl-0":
            raise CleanupError("pl-0 stays")
        if name == "pl-1":
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pytest_lima.ownership.removal.remove", remove)
    first, second = ending().finish_run()
    assert str(first) == "pl-0 stays"
    assert isinstance(second, CleanupError)
    assert "pl-1" in str(second) and "Permission denied" in str(second)
    assert [one.name for one in ledger.records()] == ["pl-0", "pl-1"]


def test_what_could_not_be_deleted_keeps_its_record(
    ledger: Ledger, record: Record, ending: Callable[..., Ending], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the reaper, or the next run, tries again."""
    Path(record.limactl).write_text("#!/bin/sh\nexit 1\n")
    with monkeypatch.context() as patch, pytest.raises(CleanupError):
        patch.setattr("pytest_lima.ownership.removal._remove_folder", _refuse)
        ending().give_back("pl-1", None, failed=False)
    left = ledger.read("pl-1")
    assert left is not None and left.state == "ending"


def _refuse(folder: Path, error: CleanupError) -> None:
    raise error


def test_commands_to_paste_are_quoted(
    ledger: Ledger, record: Record, ending: Callable[..., Ending]
) -> None:
    one = ending(keep="always")
    one.note_kept(replace(record, home="/my home/h", limactl="/opt/my lima/limactl"))
    assert one.kept[0].enter == "LIMA_HOME='/my home/h' '/opt/my lima/limactl' shell pl-1"
