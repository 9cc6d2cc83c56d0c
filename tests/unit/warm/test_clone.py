"""The files of a kept disk and of its clones; that they boot is seen in tests/plugin and e2e."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_lima.boot import Booted
from pytest_lima.errors import LimaError, ReadyTimeoutError
from pytest_lima.guest import identity
from pytest_lima.lima.limactl import Limactl
from pytest_lima.warm import clone
from pytest_lima.warm.store import Golden, Store

IMAGE = b"QFI\xfb and more"


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    folder = tmp_path / "pl-1"
    (folder / "pl").mkdir(parents=True)
    for name in ("lima.yaml", "lima-version", "vz-efi", "vz-identifier", "kernel", "ssh.config",
                 "cidata.iso", "ha.stderr.log", "serialv.log", "old.pid", "x.sock",
                 "protected"):  # fmt: skip
        (folder / name).write_text(name)
    (folder / "disk").write_bytes(IMAGE)
    return folder


def booted(instance: Path, vmtype: str) -> Booted:
    info = SimpleNamespace(dir=instance, name="pl-1", vmtype=vmtype)
    one = SimpleNamespace(info=info, address=SimpleNamespace(user="ann"), connection=None,
                          booted_as=("pl-1",),
                          close=lambda: None)  # fmt: skip
    return cast("Booted", one)


def keep(instance: Path, vmtype: str) -> Golden:
    store = Store(instance.parent)
    with store.building("k1", lambda _: None), store.half("k1") as folder:
        return store.publish(clone.bake(booted(instance, vmtype), folder, "k1", "t"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_of_one_start_or_one_instance_is_not_kept(instance: Path) -> None:
    golden = keep(instance, "vz")
    assert names(golden.folder) == {
        "lima.yaml", "lima-version", "vz-efi", "vz-identifier", "kernel", "disk", "golden.json",
    }  # fmt: skip
    assert (golden.folder / "vz-identifier").read_bytes() == b""  # two VMs with one can't run
    assert (instance / "vz-identifier").read_bytes() != b""
    assert golden.disk_only and golden.kept.hostname == "lima-pl-1"
    assert Store(instance.parent).find("k1") == golden


def test_a_disk_of_vz_is_copied(instance: Path, tmp_path: Path, tools_env: dict[str, str]) -> None:
    golden = keep(instance, "vz")
    clone.lay_out(golden, tmp_path / "pl-2", tools_env)
    assert names(tmp_path / "pl-2") == names(golden.folder) - {"golden.json"}
    copy = tmp_path / "pl-2" / "disk"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    copy.write_bytes(b"changed")
    assert (golden.folder / "disk").read_bytes() == IMAGE


def test_a_disk_of_qemu_is_an_overlay(
    instance: Path, tmp_path: Path, tools_env: dict[str, str], tool: Callable[..., Path]
) -> None:
    tool("qemu-img", 'echo "$*" >>"$HOME/calls"')
    golden = keep(instance, "qemu")
    assert golden.layer.startswith("disk-") and golden.layer_format == "qcow2"
    clone.lay_out(golden, tmp_path / "pl-2", tools_env)
    assert (tmp_path / "pl-2" / golden.layer).samefile(golden.folder / golden.layer)
    assert (tmp_path / "calls").read_text().split()[-6:] == [
        "qcow2", "-b", golden.layer, "-F", "qcow2", str(tmp_path / "pl-2" / "disk"),
    ]  # fmt: skip
    (tmp_path / "pl-2" / "lima.yaml").write_text("limactl may write it")
    assert (golden.folder / "lima.yaml").read_text() == "lima.yaml"


def test_what_can_t_be_copied_is_said(
    instance: Path, tmp_path: Path, tools_env: dict[str, str], tool: Callable[..., Path]
) -> None:
    tool("cp", "echo no space left >&2; exit 1")
    with pytest.raises(LimaError, match="could not be copied") as caught:
        clone.lay_out(keep(instance, "vz"), tmp_path / "pl-2", tools_env)
    assert "no space left" in str(caught.value)


def test_one_that_was_removed_meanwhile_is_an_error(
    instance: Path, tmp_path: Path, tools_env: dict[str, str]
) -> None:
    golden = keep(instance, "vz")
    Store(tmp_path).remove(golden)
    with pytest.raises(OSError):
        clone.lay_out(golden, tmp_path / "pl-2", tools_env)


def test_the_end_of_the_guest_is_awaited(instance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["Running", "Broken", "Stopped"]
    asked: list[object] = []
    monkeypatch.setattr(identity, "retire", asked.append)
    limactl = cast("Limactl", SimpleNamespace(
        inspect=lambda name: SimpleNamespace(status=states.pop(0) if states[1:] else states[0]),
    ))  # fmt: skip
    clone.shut_down(booted(instance, "vz"), limactl)
    assert states == ["Stopped"] and len(asked) == 1
    states[:] = ["Running"]
    monkeypatch.setattr(clone, "_SHUTDOWN_TIMEOUT", 0.0)
    with pytest.raises(ReadyTimeoutError, match="end of the guest's shutdown"):
        clone.shut_down(booted(instance, "vz"), limactl)
