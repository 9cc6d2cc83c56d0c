"""What is done to QEMU and to the files, in which order; that it works is seen on real VMs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from pytest_lima.booted import Booted
from pytest_lima.errors import InstanceDiedError, LimaError, ReadyTimeoutError
from pytest_lima.guest import clock, identity
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.identity import Kept
from pytest_lima.lima import logs
from pytest_lima.warm import bake as baking
from pytest_lima.warm.bake import bake, create_overlay

QEMU_IMG = """\
echo "$*" >>"$HOME/calls"
for argument; do case $argument in /*) : >"$argument" ;; esac; done
"""


class Qemu:
    """A monitor that remembers what it was told, and fails where a test wants it to."""

    def __init__(self, instance: Path) -> None:
        self.instance = instance
        self.told: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.snapshot: dict[str, object] = {}
        self.file = str(instance / "disk")

    def __call__(self, socket: Path) -> Self:
        assert socket == self.instance / "qmp.sock"
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.told.append("disconnect")

    def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        self.told.append(command)
        if command in self.fails:
            raise self.fails[command]
        if command == "query-block":
            image = {"format": "qcow2", "virtual-size": 4096}
            return [{"device": "cdrom0"}, {"device": "boot-disk", "inserted": {
                "file": self.file, "image": image}}]  # fmt: skip
        if command == "blockdev-snapshot-sync":
            self.snapshot = arguments or {}
            # What QEMU 7.2 tells from then on.
            nodes = {"driver": "qcow2", "file": {"driver": "file",
                     "filename": self.snapshot["snapshot-file"]},
                     "backing": {"file": {"driver": "file", "filename": self.file}}}  # fmt: skip
            self.file = f"json:{json.dumps(nodes)}"
        return {}

    def pass_file(self, name: str, descriptor: int) -> None:
        os.write(descriptor, b"memory")

    def migrate(self, command: str, arguments: dict[str, object], timeout: float) -> None:
        self.execute(command, arguments)


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "pl-1"
    folder.mkdir(parents=True)
    for name in ("lima.yaml", "lima-version", "kernel", "disk", "serial.log", "cidata.iso"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "half"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def qemu(instance: Path, monkeypatch: pytest.MonkeyPatch) -> Qemu:
    one = Qemu(instance)
    monkeypatch.setattr(baking, "Monitor", one)

    @contextmanager
    def keeping(connection: object, host: str) -> Iterator[Kept]:
        one.told.append("waker begun")
        yield Kept("token", host)
        one.told.append("waker ended")

    monkeypatch.setattr(identity, "keeping", keeping)
    monkeypatch.setattr(clock, "correct", lambda connection: one.told.append("clock set"))
    return one


@pytest.fixture
def booted(instance: Path) -> Booted:
    return cast("Booted", SimpleNamespace(
        info=SimpleNamespace(name="pl-1", dir=instance, memory=1),
        address=SimpleNamespace(user="ann"), connection=None,
        keys=HostKeys({"ssh-ed25519": "AAAA"}, "the console"), booted_as=("pl-1",),
        cold_seconds=80.0,
    ))  # fmt: skip


@pytest.fixture
def environ(tool: Callable[..., Path], tools_env: dict[str, str]) -> dict[str, str]:
    tool("qemu-img", QEMU_IMG)
    return tools_env


def test_a_vm_is_kept(
    qemu: Qemu, booted: Booted, environ: dict[str, str], folder: Path, instance: Path
) -> None:
    golden = bake(booted, environ, folder, "k1", "template:debian")
    assert qemu.told == ["waker begun", "stop", "migrate-set-parameters", "migrate",
                         "query-block", "blockdev-snapshot-sync", "cont", "disconnect",
                         "clock set", "waker ended"]  # fmt: skip
    assert (golden.state.read_bytes(), golden.user, golden.name) == (b"memory", "ann", "pl-1")
    assert golden.kept == Kept("token", "lima-pl-1") and golden.layer_format == "qcow2"
    assert golden.host_keys == {"ssh-ed25519": "AAAA"} and golden.cold_seconds == 80.0
    # Its disk is shared; of the boot itself only what was printed is there.
    names = {path.name for path in folder.iterdir()}
    assert names == {"lima.yaml", "lima-version", "kernel", "state", golden.layer,
                     "console.kept.log"}  # fmt: skip
    assert (folder / "console.kept.log").read_text() == logs.console_text(instance)
    assert (folder / golden.layer).samefile(instance / golden.layer)
    assert (folder / "kernel").samefile(instance / "kernel")
    assert not (folder / "lima.yaml").samefile(instance / "lima.yaml")
    assert (folder / golden.layer).read_text() == "disk"
    # The instance goes on with a new one, under the name QEMU knows and the one Lima knows.
    new = Path(str(qemu.snapshot["snapshot-file"]))
    assert new.parent == instance and new.samefile(instance / "disk")
    assert new.read_bytes() == b"" and qemu.snapshot["mode"] == "existing"
    [call] = (Path(environ["HOME"]) / "calls").read_text().splitlines()
    assert f"-b {golden.layer} -F qcow2 -u {new} 4096" in call


def test_it_can_be_kept_again(
    qemu: Qemu, booted: Booted, environ: dict[str, str], folder: Path, instance: Path
) -> None:
    first = bake(booted, environ, folder, "k1", "t")
    (instance / "disk").write_text("more")
    second = folder.with_name("second")
    second.mkdir()
    golden = bake(booted, environ, second, "k2", "t")
    assert (second / golden.layer).read_text() == "more"
    assert (second / first.layer).samefile(folder / first.layer)  # which that one lies on
    assert (instance / "disk").read_bytes() == b""


def test_its_disk_alone(qemu: Qemu, environ: dict[str, str], folder: Path, instance: Path) -> None:
    layer, layer_format = baking.put_disk_aside(instance, folder, environ)
    assert qemu.told == ["stop", "query-block", "blockdev-snapshot-sync", "cont", "disconnect"]
    assert [path.name for path in folder.iterdir()] == [layer] and layer_format == "qcow2"
    assert (folder / layer).samefile(instance / layer)
    assert (folder / layer).read_text() == "disk" and (instance / "disk").read_bytes() == b""


@pytest.mark.parametrize("step", ["migrate", "query-block", "blockdev-snapshot-sync"])
def test_a_vm_that_could_not_be_kept_runs_on_as_it_was(
    qemu: Qemu, booted: Booted, environ: dict[str, str], folder: Path, instance: Path, step: str
) -> None:
    qemu.fails[step] = LimaError("no")
    with pytest.raises(LimaError, match="no") as caught:
        bake(booted, environ, folder, "k1", "t")
    assert not isinstance(caught.value, InstanceDiedError)
    assert qemu.told[-3:] == ["cont", "disconnect", "clock set"]
    assert (instance / "disk").read_text() == "disk"


def test_a_vm_that_stands_still_for_good_is_as_good_as_dead(
    qemu: Qemu, booted: Booted, environ: dict[str, str], folder: Path
) -> None:
    qemu.fails["cont"] = LimaError("no", seen="a lock")
    with pytest.raises(InstanceDiedError, match="stands still") as caught:
        bake(booted, environ, folder, "k1", "t")
    assert caught.value.seen == "a lock"


@pytest.mark.parametrize("fails", [(), ("migrate",)])
def test_so_is_one_whose_clock_has_stood_still_for_good(
    qemu: Qemu, booted: Booted, environ: dict[str, str], folder: Path, monkeypatch, fails
) -> None:
    def correct(connection: object) -> None:
        raise ReadyTimeoutError("the guest's clock is -9 s off", ran="date")

    monkeypatch.setattr(clock, "correct", correct)
    qemu.fails = dict.fromkeys(fails, LimaError("no"))
    with pytest.raises(InstanceDiedError, match="clock has stood still") as caught:
        bake(booted, environ, folder, "k1", "t")
    assert (caught.value.seen, caught.value.ran) == ("the guest's clock is -9 s off", "date")


def test_without_room_nothing_is_begun(
    qemu: Qemu, booted: Booted, environ: dict[str, str], folder: Path, monkeypatch
) -> None:
    free = SimpleNamespace(free=1024**3)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    with pytest.raises(LimaError, match="too little room"):
        bake(booted, environ, folder, "k1", "t")
    assert qemu.told == []


def test_a_qemu_without_the_disk(qemu: Qemu, instance: Path) -> None:
    qemu.file = str(instance.parent / "disk")
    with pytest.raises(LimaError, match="no device with the instance's disk"):
        baking._disk_of(cast("Any", qemu), instance)


def test_qemu_img_s_complaint(tool: Callable[..., Path], tools_env: dict[str, str],
                              tmp_path: Path) -> None:  # fmt: skip
    tool("qemu-img", "echo 'no such format' >&2; exit 1")
    with pytest.raises(LimaError, match="no such format"):
        create_overlay(tmp_path / "disk", "disk-1", "qcow2", tools_env)


@pytest.mark.parametrize(
    ("told", "file"),
    [
        ("/i/disk", "/i/disk"),
        ('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/i/disk"}}', "/i/disk"),
        ('json:{"driver": "raw", "file": {"driver": "throttle", "file": {"filename": "/i/disk"}}}',
         "/i/disk"),
        ('json:{"driver": "nbd", "host": "h"}', ""),
        (None, ""),
    ],
)  # fmt: skip
def test_the_file_of_a_device_is_found_below_formats_and_filters(
    told: str | None, file: str
) -> None:
    assert baking._file_of({"file": told}) == file
