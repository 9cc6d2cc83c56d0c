"""Who may do what with the states of an instance, and what is left of them, on the fake limactl.

Its QEMU has no memory to keep, so waking up is a cold start here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import CleanupError, LimaError, StartError
from pytest_lima.guest import readiness
from pytest_lima.guest.identity import Kept
from pytest_lima.instance import Instance
from pytest_lima.lima import identity
from pytest_lima.lima.identity import this_process
from pytest_lima.observer import Observer
from pytest_lima.ownership import removal, starting
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.pool import Pool
from pytest_lima.ownership.record import READY, STARTING
from pytest_lima.settings import Settings, resolve
from pytest_lima.spec import MachineSpec
from pytest_lima.warm import fit, snapshots, start
from pytest_lima.warm.golden import Golden


class States:
    """What was kept and woken up, and what goes wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.woken: list[str] = []
        self.bake_fails: BaseException | None = None
        self.wake_fails: LimaError | None = None
        self.seen: Callable[[], object] = lambda: None
        monkeypatch.setattr(snapshots, "bake", self.bake)
        monkeypatch.setattr(start, "wake_up", self.wake_up)
        monkeypatch.setattr(fit, "unfit_machine", lambda *_: None)
        monkeypatch.setattr(readiness, "_INTERVAL", 0.02)

    def bake(
        self, booted: Booted, environ: dict[str, str], folder: Path, key: str, template: str
    ) -> Golden:
        (folder / "disk-1").write_text(booted.connection.host_key)
        self.seen()
        if self.bake_fails:
            raise self.bake_fails
        return Golden(folder, key, booted.info.name, template, Kept("t", "h"), "ann", {},
                      "disk-1", "raw", ("pl-1",))  # fmt: skip

    def wake_up(self, order: start.Order, golden: Golden) -> tuple[Boot, Booted]:
        assert (golden.folder / "disk-1").exists()
        self.woken.append(golden.key)
        if self.wake_fails:
            raise self.wake_fails
        return order.cold(lambda _: None)


def cold() -> Settings:
    """Whatever the mode, states are kept and woken up; it saves looking for golden machines."""
    return replace(resolve({}, os.environ, {}), start="cold")


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> States:
    return States(monkeypatch)


@pytest.fixture
def ledger(fake_lima: Any) -> Ledger:
    return Ledger()


@pytest.fixture
def pool(fake_lima: Any, states: States, ledger: Ledger) -> Iterator[Pool]:
    made = Pool(cold(), os.environ, Observer(), ledger)
    yield made
    made.close()
    fake_lima.assert_clean()


@pytest.fixture
def vm(pool: Pool, fake_lima: Any) -> Instance:
    return pool.create(MachineSpec(template=fake_lima.template()), None)


def test_it_goes_back_as_the_same_object_under_its_name(
    vm: Instance, states: States, fake_lima: Any
) -> None:
    name, port = vm.name, vm.ssh_port
    vm.snapshot("a")
    vm.run("touch /etc/dirty")
    vm.reset()
    vm.restore("a")
    vm.restore("a")  # as often as one likes, and not lost by a reset
    assert states.woken == ["a", "a"]
    assert (vm.name, fake_lima.instances()) == (name, [name])
    assert vm.ssh_port != port
    assert not vm.run("test -e /etc/dirty", check=False).ok


def test_one_that_died_comes_back(vm: Instance, states: States, fake_lima: Any) -> None:
    vm.snapshot("a")
    fake_lima.crash(vm.name)
    vm.restore("a")
    assert vm.run("echo back").stdout == "back\n"


def test_a_clone_is_one_of_the_pool_s(
    vm: Instance, states: States, ledger: Ledger, pool: Pool, fake_lima: Any
) -> None:
    recorded: list[set[str]] = []
    states.seen = lambda: recorded.append({record.name for record in ledger.records()})
    other = vm.clone()
    assert recorded == [{vm.name, other.name}]  # before anything of it was there
    assert other.name.startswith("pl-") and other.name != vm.name
    vm.run("touch /etc/dirty")
    assert not other.run("test -e /etc/dirty", check=False).ok

    states.woken.clear()
    other.reset()
    assert states.woken == ["+first"]  # its own first state, not that of the template
    third = other.clone()
    third.snapshot("a")
    assert sorted(fake_lima.instances()) == sorted(one.name for one in (vm, other, third))
    pool.release(other)
    assert other.name not in fake_lima.instances()
    assert not (fake_lima.home / "_snapshots" / other.name).exists()
    third.reset()


@pytest.mark.parametrize("error", [LimaError("no"), OSError("full"), KeyboardInterrupt()])
def test_a_clone_that_could_not_be_kept_leaves_nothing(
    vm: Instance, states: States, ledger: Ledger, fake_lima: Any, error: BaseException
) -> None:
    states.bake_fails = error
    kind = LimaError if isinstance(error, OSError) else type(error)
    with pytest.raises(kind):
        vm.clone()
    assert [record.name for record in ledger.records()] == [vm.name] == fake_lima.instances()
    assert [path.name for path in fake_lima.home.glob("_snapshots/*")] == []
    assert vm.run("echo on").stdout == "on\n"
    with pytest.raises(kind):
        vm.snapshot("a")
    assert vm.run("echo on").stdout == "on\n"


def test_what_does_not_wake_up_leaves_nothing(
    vm: Instance, states: States, ledger: Ledger, fake_lima: Any
) -> None:
    vm.snapshot("a")
    states.wake_fails = StartError("it hangs")
    with pytest.raises(StartError, match="it hangs"):
        vm.clone()
    assert [record.name for record in ledger.records()] == [vm.name] == fake_lima.instances()
    with pytest.raises(StartError, match="it hangs"):
        vm.restore("a")
    fake_lima.assert_clean()


def test_after_a_reset_that_failed_another_may_go_well(
    vm: Instance, ledger: Ledger, fake_lima: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has removed it with its record; the second writes one before it makes anything."""
    first = ledger.read(vm.name)
    fails(monkeypatch, vm.reset)
    assert fake_lima.records() == fake_lima.instances() == []
    recorded: list[list[str]] = []
    make = starting.start

    def start(*args: Any) -> Any:
        recorded.append([fake_lima.records(), fake_lima.instances()])
        return make(*args)

    with monkeypatch.context() as patch:
        patch.setattr(starting, "start", start)
        vm.reset()
    assert recorded == [[[vm.name], []]]
    record = ledger.read(vm.name)
    assert first is not None and record is not None
    assert (record.state, record.leases, record.facts) == (READY, (this_process(),), first.facts)
    assert vm.run("echo on").stdout == "on\n"


def fails(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    def start(*_: object) -> None:
        raise StartError("it hangs")

    with monkeypatch.context() as patch, pytest.raises(StartError, match="it hangs"):
        patch.setattr(starting, "start", start)
        act()


def test_who_comes_while_it_is_reset_waits_for_it(
    vm: Instance, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.snapshot("a")
    remove, seen = removal.remove, []

    def watched(limactl: Any, name: str, warn: Any) -> None:
        record = ledger.read(name)
        assert record is not None
        seen.append((record.state, record.starter))
        remove(limactl, name, warn)

    monkeypatch.setattr(removal, "remove", watched)
    vm.reset()
    vm.restore("a")
    assert seen == [(STARTING, this_process())] * 2
    record = ledger.read(vm.name)
    assert record is not None and record.state == READY


def test_an_unknown_name_costs_nothing(vm: Instance) -> None:
    port = vm.ssh_port
    with pytest.raises(LimaError, match="no snapshot 'b'"):
        vm.restore("b")
    assert vm.ssh_port == port and vm.run("true").ok


def uses(vm: Instance) -> list[Callable[[], object]]:
    return [vm.reset, lambda: vm.snapshot("b"), lambda: vm.restore("a"), vm.clone]


def test_not_while_others_use_it(vm: Instance, ledger: Ledger) -> None:
    vm.snapshot("a")
    record = ledger.read(vm.name)
    other = identity.of(os.getppid())
    assert record is not None and other is not None
    ledger.write(record.leased(other))
    for use in uses(vm):
        with pytest.raises(LimaError, match="1 other processes use it"):
            use()
    ledger.write(record)


def test_not_by_who_has_joined_it(vm: Instance) -> None:
    joined = Instance(vm._host, vm._boot, vm.booted)
    for use in uses(joined):
        with pytest.raises(LimaError, match="another process has started it"):
            use()
    joined.detach()


def joins(settings: Settings, fake_lima: Any, ledger: Ledger, template: str) -> Pool:
    pool = Pool(settings, os.environ, Observer(), ledger)
    pool.acquire(MachineSpec(template=template))
    return pool


def held(pool: Pool) -> Instance:
    [member] = pool._members.held().values()
    return member.instance


def test_who_is_the_last_user_of_a_joined_one_may_do_all_with_it(
    fake_lima: Any, states: States, ledger: Ledger
) -> None:
    """Whoever has started it, an earlier run or a worker that crashed, is gone."""
    settings, template = replace(cold(), reuse=True), fake_lima.template()
    first = joins(settings, fake_lima, ledger, template)
    first.close()
    second = joins(replace(settings, sources={"keep": "command line"}), fake_lima, ledger, template)
    vm = held(second)
    vm.run("touch /etc/dirty")
    vm.snapshot("a")
    vm.reset()
    assert not vm.run("test -e /etc/dirty", check=False).ok
    vm.restore("a")
    vm.clone()
    assert states.woken == ["a", "+first"]
    second.close()
    fake_lima.assert_clean()


def test_one_that_was_made_again_here_may_be_reset(
    fake_lima: Any, states: States, ledger: Ledger
) -> None:
    settings, template = replace(cold(), reuse=True, recreate=1), fake_lima.template()
    joins(settings, fake_lima, ledger, template).close()
    second = joins(replace(settings, sources={"keep": "command line"}), fake_lima, ledger, template)
    vm = held(second)
    fake_lima.crash(vm.name)
    assert second.renew(vm)
    vm.reset()
    assert vm.run("echo on").stdout == "on\n"
    second.close()
    fake_lima.assert_clean()


def test_one_of_which_a_reset_failed_may_be_reset_by_who_had_joined_it(
    fake_lima: Any, states: States, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, template = replace(cold(), reuse=True), fake_lima.template()
    joins(settings, fake_lima, ledger, template).close()
    second = joins(replace(settings, sources={"keep": "command line"}), fake_lima, ledger, template)
    vm = held(second)
    fails(monkeypatch, vm.reset)
    vm.reset()
    assert vm.run("echo on").stdout == "on\n"
    second.close()
    fake_lima.assert_clean()


def test_who_comes_while_it_is_kept_waits(vm: Instance, states: States, ledger: Ledger) -> None:
    seen: list[tuple[str, str]] = []

    def look() -> None:
        record = ledger.read(vm.name)
        assert record is not None and record.starter == this_process()
        seen.append((record.state, ledger.phase(vm.name)))

    states.seen = look
    vm.snapshot("a")
    vm.clone()
    assert seen == [(STARTING, "standing still, to be kept"),
                    (STARTING, "standing still, to be cloned")]  # fmt: skip
    record = ledger.read(vm.name)
    assert record is not None and record.state == READY


def test_of_a_vm_that_is_left_behind_no_state_is(
    fake_lima: Any, states: States, ledger: Ledger
) -> None:
    settings = replace(cold(), keep="always")
    pool = Pool(settings, os.environ, Observer(), ledger)
    vm = pool.create(MachineSpec(template=fake_lima.template()), None)
    vm.snapshot("a")
    pool.close()
    assert fake_lima.instances() == [vm.name]
    assert list(fake_lima.home.glob("_snapshots/*")) == []


def test_one_whose_reset_failed_is_left_behind_once_where_that_is_wanted(
    fake_lima: Any, states: States, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(replace(cold(), keep="on-failure"), os.environ, Observer(), ledger)
    vm = pool.create(MachineSpec(template=fake_lima.template()), None)

    def late(*_: object) -> None:
        raise StartError("it hangs")

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(StartError, match="it hangs"):
            patch.setattr("pytest_lima.ownership.making.write_state", late)
            vm.reset()
    pool.close()
    assert fake_lima.instances() == [vm.name]
    assert [kept.name for kept in pool.kept] == [vm.name]
    record = ledger.read(vm.name)
    assert record is not None and record.keep


def test_states_that_can_t_be_removed_are_told(tmp_path: Path, monkeypatch) -> None:
    removal.remove_snapshots(tmp_path, "pl-1")  # there are none

    def busy(folder: Path) -> None:
        raise OSError("busy")

    monkeypatch.setattr("shutil.rmtree", busy)
    with pytest.raises(CleanupError, match="the snapshots of pl-1 can't be removed") as caught:
        removal.remove_snapshots(tmp_path, "pl-1")
    assert caught.value.remedy == f"rm -r {tmp_path / '_snapshots' / 'pl-1'}"


def test_where_it_is_joined_from_is_known(vm: Instance) -> None:
    """Another process that reboots it has to know which addresses it had."""
    state = json.loads((vm.dir / "pl" / "ready.json").read_text())
    assert state["booted_as"] == [vm.name]
