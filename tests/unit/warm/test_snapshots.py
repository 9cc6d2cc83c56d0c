"""Names and kept states; that a state is whole is seen on real VMs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lima.booted import Booted
from pytest_lima.errors import HostError, InstanceDiedError, LimaError, StartError, TemplateError
from pytest_lima.guest.identity import Kept
from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.host import Host
from pytest_lima.lima.limactl import Limactl
from pytest_lima.warm import fit, snapshots, start
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.snapshots import Snapshots
from pytest_lima.warm.store import Store


class Machine:
    """A VM whose memory is a text."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        limactl = Limactl("/bin/limactl", home, {}, {})
        self.host = Host(limactl, "2.2.0", "qemu", "x86_64", Accelerator("kvm"))
        self.memory = "first"
        self.fails: Exception | None = None
        self.unfit: str | None = None
        info = SimpleNamespace(name="pl-1", dir=home / "pl-1", config={})
        self.booted = cast("Booted", SimpleNamespace(info=info, keys=None))
        monkeypatch.setattr(snapshots, "bake", self.bake)
        monkeypatch.setattr(fit, "unfit_machine", lambda *_: self.unfit)

    def bake(
        self, booted: Booted, environ: dict[str, str], folder: Path, key: str, template: str
    ) -> Golden:
        (folder / "state").write_text(self.memory)
        if self.fails:
            raise self.fails
        return Golden(folder, key, booted.info.name, template, Kept("t", "h"), "ann", {},
                      "disk-1", "raw", ("pl-1",))  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.fixture
def kept(machine: Machine) -> Snapshots:
    return Snapshots(machine.host, "pl-1")


def test_a_state_is_found_by_its_name_in_its_instance_alone(
    machine: Machine, kept: Snapshots, tmp_path: Path
) -> None:
    kept.take(machine.booted, "before-upgrade_1.2")
    assert kept.find("before-upgrade_1.2").state.read_text() == "first"
    assert kept.names() == ["before-upgrade_1.2"]
    assert Snapshots(machine.host, "pl-2").names() == []
    assert Store(tmp_path).all() == []  # it is no golden machine
    assert [path.name for path in tmp_path.iterdir()] == ["_snapshots"]


def test_the_same_name_again_replaces_it_whole_or_not_at_all(
    machine: Machine, kept: Snapshots, tmp_path: Path
) -> None:
    kept.take(machine.booted, "a")
    machine.memory, machine.fails = "second", LimaError("QEMU could not do migrate")
    with pytest.raises(LimaError, match="migrate"):
        kept.take(machine.booted, "a")
    assert kept.find("a").state.read_text() == "first"
    machine.fails = None
    kept.take(machine.booted, "a")
    assert kept.find("a").state.read_text() == "second"
    assert [path.name for path in (tmp_path / "_snapshots" / "pl-1").iterdir()] == ["a"]


def test_an_unknown_name_is_told_with_those_there_are(machine: Machine, kept: Snapshots) -> None:
    with pytest.raises(LimaError, match="pl-1 has no snapshot 'c'") as caught:
        kept.find("c")
    assert caught.value.seen == "it has none"
    for name in ("b", "a"):
        kept.take(machine.booted, name)
    with pytest.raises(LimaError) as caught:
        kept.find("c")
    assert caught.value.seen == "it has a, b"


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "../a", ".", "-a", "+first", "a" * 41, "ä", "a\n"]
)
def test_bad_names(machine: Machine, kept: Snapshots, name: str, tmp_path: Path) -> None:
    for use in (lambda: kept.take(machine.booted, name), lambda: kept.find(name)):
        with pytest.raises(TemplateError, match="can't be used for a snapshot"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_what_a_clone_begins_with_has_no_name(machine: Machine, tmp_path: Path) -> None:
    other = Snapshots(machine.host, "pl-2")
    golden = other.take_first(machine.booted)
    assert (golden.state.read_text(), golden.name) == ("first", "pl-1")
    assert other.names() == []


def test_a_machine_that_can_t_be_kept(machine: Machine, kept: Snapshots, tmp_path: Path) -> None:
    machine.unfit = "it mounts directories of this host"
    with pytest.raises(HostError, match="the state of pl-1 can't be kept") as caught:
        kept.take(machine.booted, "a")
    assert caught.value.seen == "it mounts directories of this host"
    machine.unfit = None
    machine.booted.info.config["vmType"] = "vz"  # type: ignore[index]
    with pytest.raises(HostError) as caught:
        kept.take(machine.booted, "a")
    assert "vz" in str(caught.value.seen)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), InstanceDiedError("x")])
def test_a_full_disk_leaves_no_half(
    machine: Machine, kept: Snapshots, tmp_path: Path, error: Exception
) -> None:
    machine.fails = error
    with pytest.raises(LimaError) as caught:
        kept.take(machine.booted, "a")
    if isinstance(error, OSError):
        assert "the VM runs on" in str(caught.value) and "No space left" in str(caught.value)
    else:
        assert caught.value is error
    assert list((tmp_path / "_snapshots" / "pl-1").iterdir()) == []


def test_no_room_to_wake_up(
    machine: Machine, kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.take(machine.booted, "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(start, "wake_up", full)
    order = cast("Any", SimpleNamespace(name="pl-1", host=machine.host))
    with pytest.raises(StartError, match="pl-1 could not wake up") as caught:
        snapshots.wake_up(order, kept.find("a"))
    assert "No space left" in str(caught.value.seen)
