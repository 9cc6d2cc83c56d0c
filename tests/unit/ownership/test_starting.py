"""The decision between warm and cold; what each of them does is seen on real VMs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

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
from pytest_lima.lima.identity import this_process
from pytest_lima.lima.info import InstanceInfo
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.ownership import starting
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import Record
from pytest_lima.ownership.run import Run, RunContext
from pytest_lima.ownership.starting import Noted, Start
from pytest_lima.ready import ReadyVM
from pytest_lima.request import StartRequest
from pytest_lima.settings import Settings
from pytest_lima.spec import MachineSpec
from pytest_lima.warm import clone, fit
from pytest_lima.warm.golden import Golden, RefusedStateError
from pytest_lima.warm.snapshots import Snapshots
from pytest_lima.warm.store import Store

if TYPE_CHECKING:
    from conftest import Recorder


really_wake_up = Start.wake_up


@dataclass
class Machine:
    """What happens to the steps of a start, and which were taken."""

    folder: Path
    request: StartRequest
    observer: Recorder
    steps: list[str] = field(default_factory=list)
    closed: list[ReadyVM] = field(default_factory=list)
    cold: Exception | None = None
    warm: BaseException | None = None
    keep: BaseException | None = None
    keep_memory: BaseException | None = None
    unfit: str | None = None
    by_disk: bool = False

    @property
    def store(self) -> Store:
        return Store(self.request.host.limactl.home)

    def start(self, **change: Any) -> ReadyVM:
        return self.start_of(replace(self.request, **change)).ready()

    def start_of(self, request: StartRequest) -> Start:
        run, ledger = Run.alone(), Ledger(self.folder / "ledger")
        return Start(request, RunContext(Settings(), {}, run, ledger, self.observer))

    def wake_up(self, one: Start, golden: Golden) -> ReadyVM:
        return self._step("warm", self.warm)

    def bake(
        self, booted: ReadyVM, environ: dict[str, str], folder: Path, key: str, template: str
    ) -> Golden:
        self._step("keep", self.keep_memory or self.keep)
        (folder / "disk-1").write_bytes(b"")
        return Golden(folder, key, "pl-1", template, Kept("t", "h"), "ann", {}, "disk-1", "raw",
                      ("pl-1",))  # fmt: skip

    def bake_disk(
        self, booted: ReadyVM, environ: dict[str, str], folder: Path, key: str, template: str
    ) -> Golden:
        self._step("keep its disk", self.keep)
        (folder / "disk").write_bytes(b"")
        return Golden(
            folder, key, "pl-1", template, Kept("", "h"), "ann", {}, "disk", "raw", (), True
        )

    def delete(self) -> None:
        self.steps.append("delete")

    def _step(self, name: str, error: BaseException | None) -> ReadyVM:
        self.steps.append(name)
        if error is not None:
            raise error
        info = InstanceInfo("pl-1", "Running", self.folder, "qemu", "x86_64", 2, 2048, {})
        return ReadyVM(self.request, info, *cast("Any", (None,) * 5), 7.0, ("pl-1",))


@pytest.fixture
def machine(tmp_path: Path, observer: Recorder, monkeypatch: pytest.MonkeyPatch) -> Machine:
    limactl = Limactl("/bin/limactl", tmp_path, {"PATH": "/nowhere"}, {})
    host = Host(limactl, "2.2.0", "qemu", "x86_64", Accelerator("kvm"))
    filled = FilledTemplate("text", "key", {}, ())
    request = StartRequest(host, "pl-1", MachineSpec(), filled, 60, "auto", 10)
    one = Machine(tmp_path, request, observer)
    monkeypatch.setattr(Start, "cold", lambda _: one._step("cold", one.cold))
    monkeypatch.setattr(Start, "wake_up", lambda start, golden: one.wake_up(start, golden))
    monkeypatch.setattr(Start, "_delete", lambda _: one.delete())
    monkeypatch.setattr(ReadyVM, "close", lambda vm: one.closed.append(vm))
    monkeypatch.setattr(starting, "bake", one.bake)
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
        def __init__(self, request: StartRequest, *_: object) -> None:
            told.append(request.own_keys)

        def lay_out(self) -> None: ...
        def close(self) -> None: ...
        def start(self) -> None: ...

    monkeypatch.setattr(starting, "Resume", Waking)
    golden = cast("Golden", SimpleNamespace(disk_only=False))
    really_wake_up(machine.start_of(replace(machine.request, own_keys=own_keys)), golden)
    assert told == [own_keys]


def test_cold_means_cold(machine: Machine) -> None:
    machine.start(mode="cold")
    assert machine.steps == ["cold"]
    assert machine.store.all() == []


def test_another_kind_is_kept_beside_it(machine: Machine) -> None:
    machine.start()
    machine.start(filled=replace(machine.request.filled, key="another"))
    assert machine.steps == ["cold", "keep"] * 2
    assert len(machine.store.all()) == 2


REFUSED = [RefusedStateError("QEMU could not load it", seen="a reason"),
           NotItselfError("it isn't itself", seen="a reason")]  # fmt: skip
# What the kept machine has no part in, or may have none.
OTHERS = [
    StartError("the VM did not start", seen="a reason"),
    StartError("QEMU could not load the golden image", seen="a reason"),  # killed by the host
    ReadyTimeoutError("no engine answers", seen="a reason"),
    HostKeyError("something else answers", seen="a reason"),
    ConnectionLostError("no forward", seen="a reason"),
    LimactlMissingError("it can't be run", seen="a reason"),
    LimaError("qemu-img could not create a disk", seen="a reason"),
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
    assert "pl-1 could not start warm, so it starts cold: " in warning
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
    assert "pl-1 could not start warm, so it starts cold: " in warning and "a reason" in warning
    assert "the golden image stays" in warning and "prune --golden" in warning
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

    def removed(one: Start, golden: Golden) -> ReadyVM:
        monkeypatch.setattr(machine, "wake_up", wake_up)
        machine.store.remove(golden)
        machine.start(mode=mode, name="pl-2")
        raise FileNotFoundError(errno.ENOENT, "No such file", "state")

    monkeypatch.setattr(machine, "wake_up", removed)
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
    machine: Machine, observer: Recorder, monkeypatch: pytest.MonkeyPatch, wakes_up: bool
) -> None:
    """Several whose waking up fails at once make one cold start, not one each."""
    machine.start()
    error = machine.warm = RefusedStateError("it can't be loaded")

    def another_keeps_one() -> None:
        machine.steps.append("delete")
        if machine.steps.count("delete") == 1:
            machine.start()
            machine.warm = None if wakes_up else error

    monkeypatch.setattr(machine, "delete", another_keeps_one)
    machine.start()
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
    assert [vm.info.name for vm in machine.closed] == ["pl-1"]  # its limactl is ended
    if isinstance(error, LimaError):
        assert error.log == str(machine.folder / "_failures" / "pl-1.log")


def test_the_time_that_keeping_takes_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bake = machine.bake

    def slow(*args: Any) -> Golden:
        now[0] += 2.5
        return bake(*args)

    now = [100.0]
    monkeypatch.setattr(starting.realtime, "monotonic", lambda: now[0])
    monkeypatch.setattr(starting, "bake", slow)
    assert machine.start().seconds == 9.5 and machine.closed == []


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
    machine.keep_memory = NotKeptError("its memory can't be saved", seen="it has no Python 3")
    machine.start()
    machine.start()
    assert machine.steps == ["cold", "keep", "keep its disk", "warm"]
    assert observer.all("warn") == []
    assert [golden.disk_only for golden in machine.store.all()] == [True]


def test_one_of_which_nothing_can_be_kept_is_not_tried_again(machine: Machine) -> None:
    machine.keep_memory = NotKeptError("its memory can't be saved", seen="it has no Python 3")
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
    machine.start(filled=replace(machine.request.filled, key="another"), warm_budget=0)
    (second,) = machine.store.all()
    assert second.key != first.key


def test_a_reason_is_one_line_of_what_and_why() -> None:
    error = LimaError("it failed", seen="a reason", log="/a/log")
    assert starting._reason(error) == "it failed; a reason; see /a/log"


@pytest.mark.parametrize("gone", [False, True])
def test_what_can_not_wake_up_from_its_own_state_does_not_start(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    monkeypatch.setattr(Snapshots, "read", lambda _, key: read(key))

    def read(key: str) -> Golden:
        if gone:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", key)
        return cast("Golden", None)

    machine.warm = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StartError, match="pl-1 could not resume from its saved state") as caught:
        machine.start(state="a")
    assert ("No such file" if gone else "No space left") in str(caught.value.seen)
    assert machine.steps == ([] if gone else ["warm"])
    if not gone:
        assert "free disk space" in (caught.value.remedy or "")


def mishap() -> StartError:
    return StartError("the kernel has panicked", seen="Oops: int3")


@pytest.mark.parametrize(("mishaps", "fails"), [(2, False), (3, True)])
def test_a_wake_up_survives_two_mishaps(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, mishaps: int, fails: bool
) -> None:
    ends = [mishap() for _ in range(mishaps)]

    def woken(_: Start, golden: Golden) -> ReadyVM:
        return machine._step("warm", ends.pop() if ends else None)

    monkeypatch.setattr(Start, "_woken", woken)
    golden = cast("Golden", None)
    with pytest.raises(StartError) if fails else nullcontext():
        really_wake_up(machine.start_of(machine.request), golden)
    assert machine.steps == ["warm", "delete", "warm", "delete", "warm"] and ends == []


def test_who_waits_can_read_how_far_it_is(tmp_path: Path, observer: Recorder) -> None:
    mine = this_process()
    Ledger(tmp_path).write(Record("pl-1", "/h", "limactl", "key", "run", mine, mine))
    noted = Noted(observer, Ledger(tmp_path))
    noted.phase("pl-1", "booting")
    noted.phase("pl-1", "waiting for cloud-init")
    assert Ledger(tmp_path).phase("pl-1") == "waiting for cloud-init"
    assert Ledger(tmp_path).phase("pl-2") == ""
    assert observer.all("phase") == ["booting", "waiting for cloud-init"]


def test_everything_else_is_passed_on(tmp_path: Path, observer: Recorder) -> None:
    noted = Noted(observer, Ledger(tmp_path))
    noted.tick("a line")
    noted.ready("pl-1", 3.0)
    noted.failed("pl-1")
    noted.warn("mind this")
    assert observer.told == [
        ("tick", "a line"), ("ready", "pl-1"), ("failed", "pl-1"), ("warn", "mind this"),
    ]  # fmt: skip
