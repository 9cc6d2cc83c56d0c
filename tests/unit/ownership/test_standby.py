"""VMs for later: made aside, taken, or given up. What a paused VM is, is seen on real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_lima.errors import CleanupError, LimaError, StartError
from pytest_lima.observer import Observer
from pytest_lima.ownership import standby as module
from pytest_lima.ownership.facts import fits_beside
from pytest_lima.ownership.standby import Standby
from pytest_lima.ownership.starting import Order

if TYPE_CHECKING:
    from conftest import Recorder


class Vm:
    def __init__(self, name: str) -> None:
        self.name = name
        self.dir = Path("/nowhere")
        self.booted = SimpleNamespace(starting=None)
        self.did: list[str] = []

    def detach(self) -> None:
        self.did.append("detach")

    def disconnect(self) -> None:
        self.did.append("disconnect")


class Makers:
    """Makers of VMs that take a while, or fail."""

    def __init__(self) -> None:
        self.made: list[Vm] = []
        self.names: list[str] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.room = True
        self.fails: Exception | None = None
        self.wake_fails: Exception | None = None

    def __call__(self, observer: Observer) -> Any:
        self.observer = observer

        def spare(order: Order) -> Vm | None:
            self.names.append(order.name)
            observer.phase(order.name, "waking up")
            observer.warn("a warning from aside")
            while not self.may_go_on.wait(0.01):
                observer.tick("")
            observer.ready(order.name, 1.0)
            if self.fails:
                observer.failed(order.name)
                raise self.fails
            if not self.room:
                return None
            self.made.append(Vm(order.name))
            return self.made[-1]

        return SimpleNamespace(spare=spare)

    def wake(self, order: Order, vm: Any) -> None:
        vm.did.append("wake")
        if self.wake_fails:
            raise self.wake_fails
        self.observer.phase(order.name, "rebooting, later on")


@pytest.fixture
def makers() -> Makers:
    return Makers()


@pytest.fixture
def adopted() -> list[tuple[str, Vm]]:
    return []


@pytest.fixture
def discarded() -> list[str]:
    return []


@pytest.fixture
def standby(
    makers: Makers, observer: Recorder, adopted: list[tuple[str, Vm]], discarded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Standby:  # fmt: skip
    monkeypatch.setattr(module, "_order_monitor", lambda vm, command: vm.did.append(command))

    def adopt(order: Order, vm: Any) -> None:
        adopted.append((order.name, vm))

    return Standby(2, makers, makers.wake, adopt, discarded.append, observer)


def order(key: str = "k1", text: str = "") -> Order:
    filled: Any = SimpleNamespace(key=key, text=text)
    return Order(cast("Any", None), "pl-asked", cast("Any", None), filled, 60)


def test_one_that_stands_still_is_taken(
    standby: Standby, makers: Makers, observer: Recorder, adopted: list[tuple[str, Vm]], until
) -> None:
    assert standby.take(order()) is None
    standby.fill(order(), 1)
    assert until(lambda: bool(makers.made) and makers.made[0].did == ["detach", "stop"])
    assert observer.told == []  # nothing while tests run
    vm = makers.made[0]
    assert vm.name == makers.names[0] != "pl-asked"
    assert standby.take(order()) is vm
    assert vm.did == ["detach", "stop", "cont", "wake"]
    assert adopted == [(vm.name, vm)]
    assert observer.told == [
        ("phase", "taking the standby"), ("warn", "a warning from aside"),
        ("phase", "rebooting, later on"), ("ready", vm.name),
    ]  # fmt: skip
    assert standby.take(order()) is None


def test_as_many_as_later_tests_want_and_of_their_kind(
    standby: Standby, makers: Makers, until, discarded: list[str]
) -> None:
    standby.fill(order(), 0)
    standby.fill(order(), -1)
    assert standby.take(order()) is None
    standby.fill(order(), 1)
    standby.fill(order(), 5)
    standby.fill(order(), 5)
    assert until(lambda: len(makers.made) == 2)
    assert standby.take(order("k2")) is None
    assert standby.close() == []
    assert sorted(discarded) == sorted(makers.names)
    assert all(vm.did[-1] == "disconnect" for vm in makers.made)


def test_one_that_isn_t_ready_yet_is_waited_for_and_never_stands_still(
    standby: Standby, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers.may_go_on.clear()
    standby.fill(order(), 1)
    # Lima is still looking into it, which would be waited for before it stands still.
    monkeypatch.setattr(module, "_LOOK", 0.01)
    busy = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(Vm, "detach", lambda vm: pytest.fail("it was let go of"))
    init = Vm.__init__

    def with_lima(vm: Vm, name: str) -> None:
        init(vm, name)
        vm.booted = SimpleNamespace(starting=busy)

    monkeypatch.setattr(Vm, "__init__", with_lima)
    threading.Timer(0.2, makers.may_go_on.set).start()
    vm = standby.take(order())
    assert vm is not None and makers.made[0].did == []


@pytest.mark.parametrize("where", ["made", "woken"])
def test_one_that_failed_is_thrown_away_with_one_warning(
    standby: Standby, makers: Makers, observer: Recorder, where: str, discarded: list[str], until,
    adopted: list[tuple[str, Vm]],
) -> None:  # fmt: skip
    error = StartError("it hangs", seen="a reason")
    if where == "made":
        makers.fails = error
    else:
        makers.wake_fails = error
    standby.fill(order(), 1)
    assert until(lambda: makers.names != [])
    assert standby.take(order()) is None
    warnings = [text for text in observer.all("warn") if "aside" not in text]
    assert len(warnings) == 1
    assert "is not used and another VM is started: it hangs" in warnings[0]
    assert "a reason" in warnings[0]
    assert discarded == makers.names and adopted == []
    assert standby.take(order()) is None and standby.close() == []


def test_where_there_is_no_room_there_is_none(
    standby: Standby, makers: Makers, observer: Recorder
) -> None:
    makers.room = False
    standby.fill(order(), 1)
    assert standby.take(order()) is None
    assert observer.told == []  # nothing was taken


def test_the_end_of_the_run_ends_the_making(
    standby: Standby, makers: Makers, discarded: list[str], until
) -> None:
    makers.may_go_on.clear()
    standby.fill(order(), 2)
    assert until(lambda: len(makers.names) == 2)
    assert standby.close() == []
    assert makers.made == [] and sorted(discarded) == sorted(makers.names)


def test_one_that_hangs_holds_nobody(
    standby: Standby, makers: Makers, monkeypatch: pytest.MonkeyPatch, discarded: list[str], until
) -> None:
    """Its limactl, for one, which is ended when what there is of it is removed."""
    hangs = threading.Event()
    monkeypatch.setattr(makers, "may_go_on", SimpleNamespace(wait=lambda _: hangs.wait(30)))
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    monkeypatch.setattr(module, "_SETTLING", -60)
    standby.fill(order(), 1)
    assert until(lambda: makers.names != [])
    assert standby.take(order()) is None
    assert discarded == makers.names
    hangs.set()


def test_what_can_t_be_removed_is_told_and_tried_again(
    makers: Makers, observer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_order_monitor", lambda vm, command: None)

    def fails(name: str) -> None:
        raise CleanupError(f"{name} is left")

    discard: list[Callable[[str], None]] = [fails]
    standby = Standby(
        1, makers, makers.wake, lambda *_: None, lambda name: discard[0](name), observer
    )
    standby.fill(order(), 1)
    [problem] = standby.close()
    assert isinstance(problem, LimaError) and "is left" in str(problem)
    discard[0] = lambda name: None
    assert standby.close() == []


@pytest.mark.parametrize(
    ("configured", "running", "free", "fits"),
    [(3, 2, 0, True), (3, 3, 10**6, False), (None, 50, 2048, True), (None, 0, 2047, False)],
)
def test_how_many_there_may_be(configured, running: int, free: int, fits: bool) -> None:
    assert fits_beside(configured, order(text="memory: 2GiB\n"), running, free) is fits
