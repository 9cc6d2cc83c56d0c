"""What a process is to a run, by what pytest-xdist tells it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lima.lima.identity import this_host, this_process
from pytest_lima.ownership.ending import Kept
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.plugin import xdist
from pytest_lima.plugin.progress import Progress
from pytest_lima.plugin.xdist import Boots, Workers

KEPT = Kept("pl-1", "enter", "delete", 60.0)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def alone() -> Workers:
    return Workers(SimpleNamespace())  # type: ignore[arg-type]


def node(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(workerinput={}, **attributes)


@pytest.fixture
def pair() -> tuple[Workers, Workers, SimpleNamespace]:
    """A controller, its worker, and the worker's end of the line."""
    controller, one = alone(), node()
    controller.configure(one)
    config = SimpleNamespace(workerinput={**one.workerinput, "workerid": "gw7"}, workeroutput={})
    return controller, Workers(config), config  # type: ignore[arg-type]


def test_without_xdist_it_is_all_there_is() -> None:
    workers = alone()
    assert not workers.controls
    run = workers.run()
    assert run.owner == this_process() and not (run.many or run.final)
    assert workers.run() is run
    assert not workers.left_something()


def test_a_worker_belongs_to_its_controller_s_run(
    pair: tuple[Workers, Workers, SimpleNamespace],
) -> None:
    controller, worker, _ = pair
    assert controller.controls and not worker.controls
    assert controller.run().final and not worker.run().final
    assert worker.run().id == controller.run().id
    assert worker.run().owner == this_process()  # who is the controller too, here
    assert worker.run().label == "gw7"
    assert worker.run().many


def test_all_workers_are_one_run() -> None:
    controller, one, two = alone(), node(), node()
    controller.configure(one)
    controller.configure(two)
    assert one.workerinput == two.workerinput
    assert one.workerinput != {}


def test_on_another_host_a_worker_answers_for_itself(
    pair: tuple[Workers, Workers, SimpleNamespace],
) -> None:
    _, _, config = pair
    id_, _, started, _ = config.workerinput["lima_run"]
    config.workerinput["lima_run"] = [id_, 1, started, f"not {this_host()}"]
    run = Workers(config).run()  # type: ignore[arg-type]
    assert run.id == id_
    assert run.owner == this_process()


def test_one_that_wants_vms_is_waited_for(
    pair: tuple[Workers, Workers, SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, worker, config = pair
    worker.join()
    assert Ledger().members(worker.run().id) == [this_process()]
    assert worker.left_something()
    controller.ended(node(workeroutput=config.workeroutput), None)
    monkeypatch.setattr("pytest_lima.plugin.xdist._LEAVE_TIMEOUT", 0.2)
    assert controller.left_something()
    assert not controller.left_something()  # once is enough


@pytest.mark.parametrize(
    ("output", "error", "left"),
    [
        ({"exitstatus": 0}, None, False),
        ({"exitstatus": 0, "lima_in_use": True}, None, True),
        ({}, None, True),  # it has not come to its end
        ({"exitstatus": 0}, "Not properly terminated", True),
    ],
)
def test_the_controller_looks_after_those_that_had_vms_or_crashed(
    output: dict[str, Any], error: str | None, left: bool
) -> None:
    controller, one = alone(), node(workeroutput=output)
    controller.configure(one)
    controller.ended(one, error)
    assert controller.left_something() is left


def test_one_that_never_ended_may_have_had_vms() -> None:
    controller = alone()
    controller.configure(node())
    assert controller.left_something()


def test_what_a_worker_leaves_elsewhere_is_told_with_the_place(
    pair: tuple[Workers, Workers, SimpleNamespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, worker, config = pair
    worker.tell([KEPT], ["it stays"], [])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    controller.ended(node(workeroutput=config.workeroutput), None)
    [kept] = controller.kept
    assert kept == replace(KEPT, host=kept.host) and kept.host
    assert controller.problems == [f"on {kept.host}: it stays"]


def test_what_it_leaves_here_the_ledger_tells(
    pair: tuple[Workers, Workers, SimpleNamespace],
) -> None:
    controller, worker, config = pair
    worker.tell([KEPT], ["it stays"], [])
    controller.ended(node(workeroutput=config.workeroutput), None)
    assert controller.kept == [] and controller.problems == []


def test_a_home_that_may_not_be_looked_into_is_no_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    controller = alone()
    controller.configure(node())
    monkeypatch.setattr(Path, "exists", refuse)
    assert not controller.collected()


def test_a_full_disk_is_not_the_end_of_a_worker(
    pair: tuple[Workers, Workers, SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "join", full)
    _, worker, config = pair
    worker.join()
    assert config.workeroutput["lima_in_use"]


def test_what_the_workers_start_is_shown_after_a_look_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    looks = iter([OSError(24, "Too many open files"), OSError(24, "Too many open files"),
                  ValueError("half a record"), []])  # fmt: skip
    enough = threading.Event()

    class Records:
        def records(self) -> list[Any]:
            found: Any = next(looks, None)
            if isinstance(found, Exception):
                raise found
            enough.set()
            return []

    monkeypatch.setattr(xdist, "_LOOK", 0.01)
    monkeypatch.setattr(Progress, "warn", lambda _, text: told.append(text))
    manager = SimpleNamespace(get_plugin=lambda _: None)
    config: Any = SimpleNamespace(pluginmanager=manager, get_verbosity=lambda: 0)
    boots = Boots(config, Records(), "run")  # type: ignore[arg-type]
    assert enough.wait(10)
    boots.end()
    assert [text.partition(": ")[2] for text in told] == [
        "OSError: [Errno 24] Too many open files", "ValueError: half a record"]  # fmt: skip
