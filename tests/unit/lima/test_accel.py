from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from pytest_lima.errors import HostError
from pytest_lima.lima import accel
from pytest_lima.lima.accel import Accelerator

NATIVE = "x86_64"
HANGS = "exec sleep 60"
# As QEMU 7.2 does where KVM can't run a guest.
ABORTS = "echo 'error: failed to set MSR' >&2; kill -ABRT $$"


@pytest.fixture
def qemu(tool, tmp_path: Path):
    """Makes a QEMU of this behaviour, which writes down its arguments."""

    def make(script: str, arch: str = NATIVE) -> Path:
        tool(f"qemu-system-{arch}", f'printf "%s\\n" "$@" >{tmp_path}/argv\n{script}')
        return tmp_path / "argv"

    return make


@pytest.fixture
def kvm(monkeypatch: pytest.MonkeyPatch):
    """Makes ``/dev/kvm`` look as wanted, on a Linux."""
    monkeypatch.setattr(sys, "platform", "linux")
    exists, access = Path.exists, os.access

    def look(*, there: bool = True, usable: bool = True) -> None:
        def fake_exists(self: Path) -> bool:
            return there if str(self) == "/dev/kvm" else exists(self)

        def fake_access(path: object, mode: int, **more: object) -> bool:
            return usable if str(path) == "/dev/kvm" else access(path, mode, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "exists", fake_exists)
        monkeypatch.setattr(os, "access", fake_access)

    look()
    return look


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_PROBE_TIMEOUT", 2.0)


def test_hardware_that_ran_a_guest_is_taken(qemu, kvm, tools_env) -> None:
    argv = qemu("exit 33")
    assert accel.choose("auto", NATIVE, NATIVE, tools_env) == Accelerator("kvm")
    assert accel.choose("kvm", NATIVE, NATIVE, tools_env) == Accelerator("kvm")
    given = argv.read_text().split("\n")
    assert given[given.index("-accel") + 1] == "kvm"
    assert given[given.index("-cpu") + 1] == "host"


def test_the_guest_is_a_boot_sector_of_512_bytes(qemu, kvm, tools_env, tmp_path) -> None:
    copy = tmp_path / "copy"
    qemu(f"""for arg; do case $arg in file=*)
        file=${{arg#file=}}; cp "${{file%%,*}}" {copy};; esac; done; exit 33""")
    accel.choose("kvm", NATIVE, NATIVE, tools_env)
    assert copy.stat().st_size == 512
    assert copy.read_bytes().endswith(b"\x55\xaa")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (ABORTS, "a test guest on kvm ended with -6: error: failed to set MSR"),
        ("exit 0", "a test guest on kvm ended with 0"),
        ("echo one >&2; echo two >&2; exit 1", "a test guest on kvm ended with 1: two"),
        (HANGS, "a test guest on kvm hung"),
    ],
)
def test_hardware_that_runs_no_guest(
    qemu, kvm, tools_env, monkeypatch: pytest.MonkeyPatch, script, problem
) -> None:
    qemu(script)
    if script == HANGS:
        monkeypatch.setattr(accel, "_PROBE_TIMEOUT", 0.2)
    found = accel.choose("auto", NATIVE, NATIVE, tools_env)
    assert found.name == "tcg"
    assert found.timeout_factor == 10
    assert (found.warning or "").startswith("kvm does not work here")
    assert problem in (found.warning or "")
    with pytest.raises(HostError) as caught:
        accel.choose("kvm", NATIVE, NATIVE, tools_env)
    lines = str(caught.value).splitlines()
    assert lines[0] == "--lima-accel=kvm does not work on this machine"
    assert lines[1].startswith("  seen: " + problem)
    assert "--lima-accel=auto" in lines[2]


@pytest.mark.parametrize(
    ("looks", "problem"),
    [
        ({"there": False}, "/dev/kvm is missing"),
        ({"usable": False}, "/dev/kvm can't be opened by this user (see its group, often kvm)"),
    ],
)
def test_a_device_that_cannot_be_used_is_not_tried(qemu, kvm, tools_env, looks, problem) -> None:
    argv = qemu("exit 33")
    kvm(**looks)
    assert problem in (accel.choose("auto", NATIVE, NATIVE, tools_env).warning or "")
    with pytest.raises(HostError, match="does not work"):
        accel.choose("kvm", NATIVE, NATIVE, tools_env)
    assert not argv.exists()


def test_no_qemu_is_a_problem_with_words(kvm, tools_env) -> None:
    # PATH of its own: the machine may have a QEMU.
    warning = accel.choose("auto", NATIVE, NATIVE, {"PATH": "/nonexistent"}).warning or ""
    assert "qemu-system-x86_64 can't be run: No such file" in warning


def test_software_emulation_that_was_asked_for_is_no_warning(qemu, kvm, tools_env) -> None:
    argv = qemu("exit 33")
    assert accel.choose("tcg", NATIVE, NATIVE, tools_env) == Accelerator("tcg")
    assert not argv.exists()


def test_another_architecture_is_emulated(qemu, kvm, tools_env) -> None:
    found = accel.choose("auto", "aarch64", NATIVE, tools_env)
    assert found.name == "tcg"
    assert "this is a x86_64 host and the guest is aarch64" in (found.warning or "")
    with pytest.raises(HostError, match="--lima-accel=kvm"):
        accel.choose("kvm", "aarch64", NATIVE, tools_env)


@pytest.mark.parametrize(
    ("platform", "wanted", "other"), [("linux", "kvm", "hvf"), ("darwin", "hvf", "kvm")]
)
def test_each_system_has_its_own_hardware(
    qemu, kvm, tools_env, monkeypatch: pytest.MonkeyPatch, platform, wanted, other
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    qemu("exit 33")
    assert accel.choose("auto", NATIVE, NATIVE, tools_env) == Accelerator(wanted)
    with pytest.raises(HostError, match=f"--lima-accel={other}") as caught:
        accel.choose(other, NATIVE, NATIVE, tools_env)
    assert caught.value.seen == f"{other} doesn't exist on this system"


@pytest.mark.parametrize(("script", "name"), [(HANGS, "kvm"), ("exit 1", "tcg"), ("", "tcg")])
def test_on_arm_a_guest_that_stays_is_one_that_works(
    qemu, kvm, tools_env, monkeypatch: pytest.MonkeyPatch, script, name
) -> None:
    monkeypatch.setattr(accel, "_PROBE_TIMEOUT", 0.3)
    qemu(script, "aarch64")
    assert accel.choose("auto", "aarch64", "aarch64", tools_env).name == name


def test_how_lima_is_told() -> None:
    for name in ("kvm", "hvf", "vz"):
        assert Accelerator(name).qemu_environ(NATIVE) == {}
        assert Accelerator(name).timeout_factor == 1
    ((variable, value),) = Accelerator("tcg").qemu_environ(NATIVE).items()
    assert variable == "QEMU_SYSTEM_X86_64"
    assert shlex.split(value) == [
        "qemu-system-x86_64", "-machine", "q35,vmport=off", "-accel", "tcg,thread=multi",
    ]  # fmt: skip
    assert Accelerator("tcg").qemu_environ("aarch64") == {
        "QEMU_SYSTEM_AARCH64": "qemu-system-aarch64 -accel tcg,thread=multi"
    }
    assert accel.qemu_binary("armv7l") == "qemu-system-arm"
