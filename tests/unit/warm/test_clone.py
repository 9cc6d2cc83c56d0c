"""The files of a kept disk and of its clones; that a faked vz boots them is in tests/plugin."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lima.booted import Booted
from pytest_lima.errors import LimaError
from pytest_lima.guest import clock, freeze
from pytest_lima.guest.ssh import Connection
from pytest_lima.warm import clone
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.store import Store

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


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to the disk while the guest is frozen, and that it is."""
    steps: list[str] = []

    @contextmanager
    def frozen(connection: Connection) -> Iterator[None]:
        steps.append("frozen")
        yield
        steps.append("thawed")

    def put_aside(instance: Path, folder: Path, environ: dict[str, str]) -> tuple[str, str]:
        steps.append("put aside")
        (folder / "disk-1").hardlink_to(instance / "disk")
        return "disk-1", "qcow2"

    monkeypatch.setattr(freeze, "frozen", frozen)
    monkeypatch.setattr(clone, "put_disk_aside", put_aside)
    monkeypatch.setattr(clock, "correct", lambda _: steps.append("clock set"))
    return steps


def keep(instance: Path, vmtype: str, environ: dict[str, str]) -> Golden:
    info = SimpleNamespace(dir=instance, name="pl-1", vmtype=vmtype)
    one = SimpleNamespace(info=info, address=SimpleNamespace(user="ann"), connection=None,
                          booted_as=("pl-1",))  # fmt: skip
    store = Store(instance.parent)
    with store.building("k1", lambda _: None), store.half("k1") as folder:
        return store.publish(clone.bake(cast("Booted", one), environ, folder, "k1", "t"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_of_one_start_or_one_instance_is_not_kept(
    instance: Path, tools_env: dict[str, str]
) -> None:
    golden = keep(instance, "vz", tools_env)
    assert names(golden.folder) == {
        "lima.yaml", "lima-version", "vz-efi", "vz-identifier", "kernel", "disk", "golden.json",
    }  # fmt: skip
    assert (golden.folder / "vz-identifier").read_bytes() == b""  # two VMs with one can't run
    assert (instance / "vz-identifier").read_bytes() != b""
    assert golden.disk_only and golden.kept.hostname == "lima-pl-1"
    assert Store(instance.parent).find("k1") == golden


def test_the_vm_goes_on_with_files_of_its_own(instance: Path, tools_env: dict[str, str]) -> None:
    golden = keep(instance, "vz", tools_env)
    for name in ("lima.yaml", "vz-efi", "disk"):
        (instance / name).write_text("changed")
        assert (golden.folder / name).read_bytes() != b"changed"
    assert (golden.folder / "disk").read_bytes() == IMAGE


@pytest.mark.parametrize(("vmtype", "step"), [("vz", "copied"), ("qemu", "put aside")])
def test_its_disk_alone_is_taken_while_it_is_frozen(
    instance: Path, tools_env: dict[str, str], still: list[str], tool: Callable[..., Path],
    vmtype: str, step: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    copy = clone._copy_on_write

    def noted(files: list[Path], *args: Any) -> None:
        if [file.name for file in files] == ["disk"]:
            still.append("copied")
        else:
            assert still == [] and instance / "disk" not in files
        copy(files, *args)

    monkeypatch.setattr(clone, "_copy_on_write", noted)
    keep(instance, vmtype, tools_env)
    assert still == ["frozen", step, "thawed", "clock set"]


def test_a_disk_of_vz_is_copied(instance: Path, tmp_path: Path, tools_env: dict[str, str]) -> None:
    golden = keep(instance, "vz", tools_env)
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
    golden = keep(instance, "qemu", tools_env)
    assert golden.layer == "disk-1" and golden.layer_format == "qcow2"
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
    golden = keep(instance, "vz", tools_env)
    tool("cp", "echo no space left >&2; exit 1")
    with pytest.raises(LimaError, match="could not be copied") as caught:
        clone.lay_out(golden, tmp_path / "pl-2", tools_env)
    assert "no space left" in str(caught.value)


def test_one_that_was_removed_meanwhile_is_an_error(
    instance: Path, tmp_path: Path, tools_env: dict[str, str]
) -> None:
    golden = keep(instance, "vz", tools_env)
    Store(tmp_path).remove(golden)
    with pytest.raises(OSError):
        clone.lay_out(golden, tmp_path / "pl-2", tools_env)
