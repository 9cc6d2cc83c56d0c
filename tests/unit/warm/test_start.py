"""The decision between warm and cold; what each of them does is seen on real VMs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import (
    AcceleratorError,
    ConnectionLostError,
    HostError,
    HostKeyError,
    InstanceDiedError,
    LimactlMissingError,
    LimaError,
    ProvisionError,
    ReadyTimeoutError,
    StartError,
)
from pytest_lima.guest.freeze import NotFrozenError
from pytest_lima.guest.identity import Kept, NotItselfError, NotKeptError
from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.host import Host
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.warm import clone, fit, start
from pytest_lima.warm.golden import Golden, RefusedStateError
from pytest_lima.warm.start import Order, Then
from pytest_lima.warm.store import Store

if TYPE_CHECKING:
    from conftest import Recorder


really_wake_up = start.wake_up


@dataclass
class Machine:
    """What happens to the steps of a start, and which were taken."""

    folder: Path
    order: Order
    steps: list[str]
    cold: Exception | None = None
    warm: BaseException | None = None
    keep: BaseException | None = None
    keep_memory: BaseException | None = None
    unfit: str | None = None
    by_disk: bool = False

    @property
    def store(self) -> Store:
        return Store(self.order.host.limactl.home)

    def start(self, **change: Any) -> None:
        start.start(replace(self.order, **change))

    def cold_start(self, then: Then) -> tuple[Boot, Booted]:
        boot, booted = self._step("cold", self.cold)
        then(booted)
        return boot, booted

    def wake_up(self, order: Order, golden: Golden) -> tuple[Boot, Booted]:
        return self._step("warm", self.warm)

    def bake(
        self, booted: Booted, environ: dict[str, str], folder: Path, key: str, template: str
    ) -> Golden:
        self._step("keep", self.keep_memory or self.keep)
        (folder / "disk-1").write_bytes(b"")
        return Golden(folder, key, "pl-1", template, Kept("t", "h"), "ann", {}, "disk-1", "raw",
                      ("pl-1",))  # fmt: skip

    def bake_disk(
        self, booted: Booted, environ: dict[str, str], folder: Path, key: str, template: str
    ) -> Golden:
        self._step("keep its disk", self.keep)
        (folder / "disk").write_bytes(b"")
        return Golden(
            folder, key, "pl-1", template, Kept("", "h"), "ann", {}, "disk", "raw", (), True
        )

    def _step(self, name: str, error: BaseException | None) -> tuple[Boot, Booted]:
        self.steps.append(name)
        if error is not None:
            raise error
        info = SimpleNamespace(dir=self.folder, config={})
        booted = SimpleNamespace(info=info, keys=None, close=lambda: None)
        return cast("tuple[Boot, Booted]", (None, booted))


@pytest.fixture
def machine(tmp_path: Path, observer: Recorder, monkeypatch: pytest.MonkeyPatch) -> Machine:
    limactl = Limactl("/bin/limactl", tmp_path, {"PATH": "/nowhere"}, {})
    host = Host(limactl, "2.2.0", "qemu", "x86_64", Accelerator("kvm"))
    order = Order(host, "pl-1", FilledTemplate("text", "key", {}, ()), "template:debian", (), 60,
                  observer, "auto", 10, lambda then: one.cold_start(then),
                  lambda: one.steps.append("delete"))  # fmt: skip
    one = Machine(tmp_path, order, [])
    monkeypatch.setattr(start, "wake_up", one.wake_up)
    monkeypatch.setattr(start, "bake", one.bake)
    monkeypatch.setattr(clone, "bake", one.bake_disk)
    monkeypatch.setattr(fit, "unfit_machine", lambda *_: one.unfit)
    monkeypatch.setattr(fit, "unfit_memory", lambda *_: "vz" if one.by_disk else None)
    return one


def test_the_first_is_kept_and_the_second_wakes_up(machine: Machine, observer: Recorder) -> None:
    machine.start()
    machine.start()
    assert machine.steps == ["cold", "keep", "warm"]
    assert observer.all("warn") == []


def test_with_keys_of_its_own_it_wakes_up_from_the_same(machine: Machine) -> None:
    machine.start()
    machine.start(own_keys=True)
    assert machine.steps == ["cold", "keep", "warm"]


@pytest.mark.parametrize("own_keys", [True, False])
def test_who_wakes_it_up_is_told_whose_host_keys_it_gets(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, own_keys: bool
) -> None:
    told = []

    class Waking:
        def __init__(self, *_: object, own_keys: bool) -> None:
            told.append(own_keys)

        def lay_out(self) -> None: ...
        def close(self) -> None: ...
        def start(self) -> None: ...

    monkeypatch.setattr(start, "Resume", Waking)
    golden = cast("Golden", SimpleNamespace(disk_only=False))
    really_wake_up(replace(machine.order, own_keys=own_keys), golden)
    assert told == [own_keys]


def test_cold_means_cold(machine: Machine) -> None:
    machine.start(mode="cold")
    assert machine.steps == ["cold"]
    assert machine.store.all() == []


def test_another_kind_is_kept_beside_it(machine: Machine) -> None:
    machine.start()
    machine.start(filled=replace(machine.order.filled, key="another"))
    assert machine.steps == ["cold", "keep"] * 2
    assert len(machine.store.all()) == 2


REFUSED = [RefusedStateError("QEMU could not load it", seen="a reason"),
           NotItselfError("it isn't itself", seen="a reason")]  # fmt: skip
# What the kept machine has no part in, or may have none.
OTHERS = [
    StartError("the VM did not start", seen="a reason"),
    StartError("QEMU could not load the kept machine", seen="a reason"),  # killed by the host
    ReadyTimeoutError("no engine answers", seen="a reason"),
    HostKeyError("something else answers", seen="a reason"),
    ConnectionLostError("no forward", seen="a reason"),
    LimactlMissingError("it can't be run", seen="a reason"),
    LimaError("qemu-img could not make a disk", seen="a reason"),
    OSError(errno.ENOSPC, "a reason"),
    OSError(errno.EMFILE, "a reason"),
    OSError(errno.ENOMEM, "a reason"),
    PermissionError(errno.EACCES, "a reason"),
    FileNotFoundError(errno.ENOENT, "a reason", "qemu-img"),
]


@pytest.mark.parametrize("error", REFUSED)
def test_what_does_not_wake_up_is_started_cold_and_kept_anew(
    machine: Machine, observer: Recorder, error: Exception
) -> None:
    machine.start()
    machine.warm = error
    machine.start()
    assert machine.steps == ["cold", "keep", "warm", "delete", "cold", "keep"]
    [warning] = observer.all("warn")
    assert "pl-1 could not wake up and starts cold: " in warning
    assert "a reason" in warning


def test_what_has_been_damaged_is_started_cold_and_kept_anew(
    machine: Machine, observer: Recorder
) -> None:
    for spoil in (Path.unlink, lambda disk: disk.write_bytes(b"torn")):
        machine.start()
        machine.warm = StartError("it hangs")
        [old] = machine.store.all()
        (old.folder / "disk-1").chmod(0o600)
        spoil(old.folder / "disk-1")
        machine.start()
        assert machine.steps == ["cold", "keep", "warm", "delete", "cold", "keep"]
        assert machine.store.all() != [old]
        machine.store.remove(machine.store.all()[0])
        machine.steps.clear()
        machine.warm = None


@pytest.mark.parametrize("by_disk", [False, True])
@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_what_another_fault_keeps_from_waking_up_stays(
    machine: Machine, observer: Recorder, error: Exception, by_disk: bool
) -> None:
    machine.by_disk = by_disk
    machine.start()
    kept = machine.store.all()
    machine.warm = error
    machine.start()
    assert machine.steps[2:] == ["warm", "delete", "cold"]
    [warning] = observer.all("warn")
    assert "pl-1 could not wake up and starts cold: " in warning and "a reason" in warning
    assert "what is kept stays" in warning and "prune --golden" in warning
    with pytest.raises(type(error)):
        machine.start(mode="warm")
    assert machine.store.all() == kept
    assert machine.store.refused(kept[0].key) is None
    machine.warm = None
    machine.start()
    assert machine.steps[-1] == "warm"


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_what_is_no_error_of_ours_removes_nothing(machine: Machine, error: Exception) -> None:
    machine.start()
    kept = machine.store.all()
    machine.warm = error
    with pytest.raises(type(error)):
        machine.start()
    assert machine.store.all() == kept


def test_one_that_can_not_be_looked_at_now_stays(
    machine: Machine, observer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start()
    kept = machine.store.all()

    def refuse(*_: object) -> Golden:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("pytest_lima.warm.golden.read", refuse)
        machine.start()
        with pytest.raises(OSError, match="Too many open files"):
            machine.start(mode="warm")
    assert machine.steps == ["cold", "keep", "cold"]
    [warning] = observer.all("warn")
    assert "Too many open files" in warning
    assert machine.store.all() == kept


def test_one_that_can_not_be_built_is_started_cold(
    machine: Machine, observer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is another user's, for one."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Store, "building", refuse)
    machine.start()
    assert machine.steps == ["cold"]
    [warning] = observer.all("warn")
    assert "Permission denied" in warning


@pytest.mark.parametrize("mode", ["auto", "warm"])
def test_one_that_another_run_removes_while_it_is_taken_is_looked_for_again(
    machine: Machine, observer: Recorder, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    machine.start()
    wake_up = machine.wake_up

    def removed(order: Order, golden: Golden) -> tuple[Boot, Booted]:
        monkeypatch.setattr(start, "wake_up", wake_up)
        machine.store.remove(golden)
        start.start(replace(order, name="pl-2"))
        raise FileNotFoundError(errno.ENOENT, "No such file", "state")

    monkeypatch.setattr(start, "wake_up", removed)
    machine.start(mode=mode)
    assert machine.steps == ["cold", "keep", "cold", "keep", "delete", "warm"]
    assert observer.all("warn") == []


def test_a_script_that_fails_in_a_clone_for_a_fault_of_the_moment_refuses_nothing(
    machine: Machine,
) -> None:
    """A mirror that can't be reached, for one: the first boot fails as well."""
    machine.by_disk = True
    machine.start()
    kept = machine.store.all()
    machine.warm = machine.cold = ProvisionError("apt-get failed")
    with pytest.raises(ProvisionError):
        machine.start()
    assert machine.store.all() == kept
    assert machine.store.refused(kept[0].key) is None


@pytest.mark.parametrize("wakes_up", [True, False])
def test_what_another_run_has_kept_anew_meanwhile_is_tried_once(
    machine: Machine, observer: Recorder, wakes_up: bool
) -> None:
    """Several whose waking up fails at once make one cold start, not one each."""
    machine.start()
    error = machine.warm = RefusedStateError("it can't be loaded")

    def another_keeps_one() -> None:
        machine.steps.append("delete")
        if machine.steps.count("delete") == 1:
            start.start(machine.order)
            machine.warm = None if wakes_up else error

    machine.start(delete=another_keeps_one)
    steps = ["cold", "keep", "warm", "delete", "cold", "keep", "warm"]
    assert machine.steps == (steps if wakes_up else [*steps, "delete", "cold"])
    assert len(observer.all("warn")) == (0 if wakes_up else 1)


@pytest.mark.parametrize("mode", ["auto", "warm"])
def test_an_accelerator_that_fails_is_no_fault_of_what_is_kept(
    machine: Machine, observer: Recorder, mode: str
) -> None:
    machine.start()
    machine.warm = AcceleratorError("the VM pl-1 did not start", seen="KVM internal error")
    with pytest.raises(AcceleratorError):
        machine.start(mode=mode)
    assert machine.steps == ["cold", "keep", "warm"]
    machine.warm = None
    machine.start()
    assert machine.steps[-1] == "warm"
    assert observer.all("warn") == []


def test_where_warm_was_asked_for_that_is_an_error(machine: Machine, observer: Recorder) -> None:
    machine.start()
    machine.warm = RefusedStateError("it hangs")
    with pytest.raises(StartError, match="it hangs"):
        machine.start(mode="warm")
    assert machine.steps == ["cold", "keep", "warm"]
    assert machine.store.all() == []  # nor does it stand in the way of the next
    assert observer.all("warn") == []


def test_a_boot_that_fails_keeps_nothing(machine: Machine) -> None:
    machine.cold = ProvisionError("a script failed")
    with pytest.raises(ProvisionError):
        machine.start()
    assert machine.steps == ["cold"] and machine.store.all() == []


def test_a_vm_that_could_not_be_kept_is_used_all_the_same(
    machine: Machine, observer: Recorder
) -> None:
    machine.keep = OSError("No space left on device")
    machine.start()
    assert machine.store.all() == []
    [warning] = observer.all("warn")
    assert "No space left" in warning
    with pytest.raises(OSError, match="No space left"):
        machine.start(mode="warm")


@pytest.mark.parametrize("error", [InstanceDiedError("it stands still"), KeyboardInterrupt()])
def test_one_that_suffered_from_it_is_not(machine: Machine, error: BaseException) -> None:
    machine.keep = error
    with pytest.raises(type(error)):
        machine.start()


def test_what_can_t_be_kept_starts_cold_without_a_word(
    machine: Machine, observer: Recorder
) -> None:
    machine.unfit = "it has additional disks"
    machine.start()
    assert machine.steps == ["cold"] and observer.all("warn") == []
    with pytest.raises(HostError, match="additional disks"):
        machine.start(mode="warm")


def test_what_can_be_kept_by_its_disk_alone_starts_once_too(
    machine: Machine, observer: Recorder
) -> None:
    machine.by_disk = True
    machine.start()
    machine.start()
    assert machine.steps == ["cold", "keep its disk", "warm"]
    assert observer.all("warn") == []
    assert [golden.disk_only for golden in machine.store.all()] == [True]


def test_one_that_can_t_be_frozen_is_not_tried_again(machine: Machine, observer: Recorder) -> None:
    machine.by_disk = True
    machine.keep = NotFrozenError("it can't be frozen", seen="an overlay")
    machine.start()
    machine.start()
    assert machine.steps == ["cold", "keep its disk", "cold"]
    assert observer.all("warn") == [] and machine.store.all() == []
    with pytest.raises(HostError, match="an overlay"):
        machine.start(mode="warm")
    machine.store.forgive()
    with pytest.raises(HostError, match="an overlay"):
        machine.start(mode="warm")
    assert machine.steps[3:] == ["cold", "keep its disk"]


def test_one_that_can_t_be_frozen_now_is_tried_again(machine: Machine, observer: Recorder) -> None:
    machine.by_disk = True
    machine.keep = NotFrozenError("it can't be frozen", seen="not frozen: Device or resource busy")
    machine.start()
    machine.keep = None
    machine.start()
    assert machine.steps == ["cold", "keep its disk"] * 2
    assert len(observer.all("warn")) == 1


def test_one_whose_memory_turns_out_not_to_be_kept_is_kept_by_its_disk(
    machine: Machine, observer: Recorder
) -> None:
    machine.keep_memory = NotKeptError("its memory can't be kept", seen="it has no Python 3")
    machine.start()
    machine.start()
    assert machine.steps == ["cold", "keep", "keep its disk", "warm"]
    assert observer.all("warn") == []
    assert [golden.disk_only for golden in machine.store.all()] == [True]


def test_one_of_which_nothing_can_be_kept_is_not_tried_again(machine: Machine) -> None:
    machine.keep_memory = NotKeptError("its memory can't be kept", seen="it has no Python 3")
    machine.keep = NotFrozenError("it can't be frozen", seen="an overlay")
    machine.start()
    machine.start()
    assert machine.steps == ["cold", "keep", "keep its disk", "cold"]
    with pytest.raises(HostError, match="an overlay"):
        machine.start(mode="warm")


@pytest.mark.parametrize(
    ("error", "anew"),
    [(RefusedStateError("no"), ["keep its disk"]), (ProvisionError("twice"), [])],
)
def test_a_clone_that_fails_is_started_cold_and_kept_anew_if_that_helps(
    machine: Machine, observer: Recorder, error: Exception, anew: list[str]
) -> None:
    machine.by_disk = True
    machine.start()
    machine.warm = error
    machine.start()
    assert machine.steps == ["cold", "keep its disk", "warm", "delete", "cold", *anew]
    assert len(observer.all("warn")) == 1
    assert len(machine.store.all()) == len(anew)


def test_who_waits_for_the_same_machine_wakes_up_from_it(
    machine: Machine, observer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run is at it: we look again when it is our turn."""
    find = Store.find
    found: list[Callable[[], object]] = []

    def first_nothing(self: Store, key: str) -> Golden | None:
        found.append(lambda: None)
        return None if len(found) == 1 else find(self, key)

    machine.start()
    monkeypatch.setattr(Store, "find", first_nothing)
    machine.start()
    assert machine.steps == ["cold", "keep", "warm"]


def test_the_budget_holds(machine: Machine) -> None:
    machine.start()
    (first,) = machine.store.all()
    machine.start(filled=replace(machine.order.filled, key="another"), budget=0)
    (second,) = machine.store.all()
    assert second.key != first.key


def test_a_reason_is_one_line_of_what_and_why() -> None:
    error = LimaError("it failed", seen="a reason", log="/a/log")
    assert start._reason(error) == "it failed; a reason; see /a/log"
