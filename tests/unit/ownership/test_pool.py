"""The machines of a run, over the strict fake."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import CleanupError, LimaError, ProvisionError
from pytest_lima.guest import ssh
from pytest_lima.lima.limactl import Limactl
from pytest_lima.ownership import removal
from pytest_lima.ownership.pool import Pool
from pytest_lima.spec import MachineSpec, machine_spec
from pytest_lima.warm import start as warm

if TYPE_CHECKING:
    from fakelima.control import FakeLima


@pytest.fixture
def spec(fake_lima: FakeLima) -> Callable[..., MachineSpec]:
    def make(scenario: str = "ok", **asked: object) -> MachineSpec:
        return machine_spec(template=fake_lima.template(scenario), **asked)

    return make


def test_equal_specs_are_one_machine_others_are_not(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima
) -> None:
    one, small = pool(), spec()
    vm = one.acquire(small)
    assert one.acquire(small) is vm
    large = one.acquire(replace(small, cpus=3))
    assert large is not vm and large.cpus == 3
    own = one.create(small, "db")
    assert own.name.endswith("-db") and own is not vm
    assert len(fake_lima.records()) == 3
    one.release(vm)
    assert len(fake_lima.instances()) == 2
    assert one.acquire(small) is not vm  # made anew
    one.close()
    fake_lima.wait_until(lambda: not fake_lima.processes())  # the reaper goes too
    fake_lima.assert_clean()


def test_pyyaml_is_loaded_before_a_thread_loads_what_loads_half_of_it(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Python sees a deadlock between them, once in some hundred starts."""
    loaded: list[bool] = []
    monkeypatch.setattr(ssh, "prepare", lambda: loaded.append("yaml._yaml" in sys.modules))
    one, small = pool(), spec()
    for name in [name for name in sys.modules if name.split(".")[0] == "yaml"]:
        monkeypatch.delitem(sys.modules, name)
    one.acquire(small)
    one.close()
    assert loaded == [True]


@pytest.mark.parametrize(("host_keys", "own"), [("own", True), ("kept", False)])
def test_whose_host_keys_a_vm_gets_is_the_settings(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima,
    monkeypatch: pytest.MonkeyPatch, host_keys: str, own: bool,
) -> None:  # fmt: skip
    orders = []

    def start(order: warm.Order) -> warm.Started:
        orders.append(order)
        return really(order)

    really = warm.start
    monkeypatch.setattr(warm, "start", start)
    one = pool(host_keys=host_keys)
    one.create(spec(), None).reset()
    one.close()
    assert [order.own_keys for order in orders] == [own] * 2
    fake_lima.assert_clean()


def test_a_boot_that_fails_leaves_nothing_and_the_pool_goes_on(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima
) -> None:
    one = pool()
    with pytest.raises(ProvisionError):
        one.create(spec("provision-failed"), None)
    assert fake_lima.instances() == [] and fake_lima.records() == []
    assert one.create(spec(), None).run("echo hello").stdout == "hello\n"
    one.close()
    fake_lima.assert_clean()


def test_a_failed_test_keeps_its_machine_and_no_other(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima
) -> None:
    one = pool(keep="on-failure")
    bad, good = (one.create(spec(), role) for role in ("bad", "good"))
    one.mark_failed(bad)
    one.close()
    assert [kept.name for kept in one.kept] == fake_lima.instances() == [bad.name]
    assert good.name not in fake_lima.records()


def test_one_that_can_not_be_removed_does_not_keep_the_others(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one = pool()
    stays = one.create(spec("delete-fails"), "stays")
    one.create(spec(), "goes")

    def refuse(folder: Path, error: LimaError) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(ExceptionGroup) as caught:
        patch.setattr("pytest_lima.ownership.removal._remove_folder", refuse)
        one.close()
    [error] = caught.value.exceptions  # told once
    assert stays.name in str(error)
    assert fake_lima.instances() == [stays.name]
    assert fake_lima.records() == [stays.name]  # so that somebody tries again
    one.close()
    fake_lima.assert_clean()


def test_a_full_disk_does_not_keep_what_would_make_room(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one = pool()
    one.acquire(spec())
    one.create(spec(), "own")
    monkeypatch.setattr("pytest_lima.lima.paths.write_whole", no_room)
    one.close()
    fake_lima.assert_clean()


def no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_the_system_refuses_is_told_of_each_and_keeps_no_other(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one = pool()
    stays, other = one.create(spec(), "stays"), one.create(spec(), "other")
    remove = removal.remove

    def refuse(limactl: Limactl, name: str, warn: Callable[[str], None]) -> None:
        if name == stays.name:
            raise PermissionError(13, "Permission denied")
        remove(limactl, name, warn)

    with monkeypatch.context() as patch, pytest.raises(ExceptionGroup) as caught:
        patch.setattr(removal, "remove", refuse)
        one.close()
    assert {type(error) for error in caught.value.exceptions} == {CleanupError}
    assert stays.name in str(caught.value.exceptions[0])
    assert "Permission denied" in str(caught.value.exceptions[0])
    assert fake_lima.instances() == fake_lima.records() == [stays.name] != [other.name]
    one.close()
    fake_lima.assert_clean()


def test_what_nobody_can_join_is_not_left_for_reuse(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima
) -> None:
    one = pool(reuse="true")
    shared = one.acquire(spec())
    one.create(spec(), "own")
    one.create_fresh(spec(), 0)
    one.close()
    assert fake_lima.instances() == fake_lima.records() == [shared.name]
    assert [kept.name for kept in one.kept] == [shared.name]


def test_eight_threads_that_ask_for_one_spec_get_one_machine(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima
) -> None:
    one, small = pool(), spec()
    with ThreadPoolExecutor(8) as threads:
        vms = set(threads.map(one.acquire, [small] * 8))
    [vm] = vms
    assert len(fake_lima.calls("create")) == 1
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one.release, [vm] * 8))
    assert fake_lima.instances() == []
    one.close()
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()


def test_threads_take_and_give_back_at_once(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima
) -> None:
    """What one gives back another asks for: it gets one that lives."""
    one, small = pool(start="cold", timeout="90"), spec()

    def use(number: int) -> None:
        vm = one.create(small, None) if number % 2 else one.create_fresh(small, 0)
        assert vm.run("echo hello").stdout == "hello\n"
        one.mark_failed(vm)
        one.release(vm)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(8)))
    assert fake_lima.instances() == []
    one.close()
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()


def test_two_threads_get_two_standbys(
    pool: Callable[..., Pool], spec: Callable[..., MachineSpec], fake_lima: FakeLima
) -> None:
    one, small = pool(start="cold", standby="2", max_vms="3", timeout="90"), spec()
    one.release(one.create_fresh(small, 2))
    with ThreadPoolExecutor(2) as threads:
        vms = list(threads.map(lambda _: one.create_fresh(small, 0), range(2)))
    assert vms[0].name != vms[1].name
    assert [vm.run("echo hello").stdout for vm in vms] == ["hello\n"] * 2
    assert len(fake_lima.calls("create")) == 3
    one.close()
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()
