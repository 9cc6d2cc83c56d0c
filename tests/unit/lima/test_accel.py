from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from pytest_lima import realtime
from pytest_lima.errors import HostError
from pytest_lima.lima import accel, probe_guests
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


@pytest.mark.parametrize(
    ("arch", "guest"), [("x86_64", probe_guests.X86_64), ("aarch64", probe_guests.AARCH64)]
)
def test_the_guest_is_loaded_as_a_kernel(qemu, kvm, tools_env, tmp_path, arch, guest) -> None:
    copy = tmp_path / "copy"
    qemu(f"""while [ "$1" != -kernel ]; do shift; done; cp "$2" {copy}""", arch)
    accel.choose("auto", arch, arch, tools_env)
    assert copy.read_bytes() == guest


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (ABORTS, "a test guest on kvm ended with -6: error: failed to set MSR"),
        ("exit 0", "a test guest on kvm ended with 0"),
        ("echo one >&2; echo two >&2; exit 1", "a test guest on kvm ended with 1: two"),
        (HANGS, "a test guest on kvm hung"),
        ("echo sse3; echo bmi2; exit 0", "a test guest on kvm ended with 0 at bmi2"),
        # As QEMU 7.2 does on a paravirtual host, whose KVM emulates.
        (
            "echo popcnt; echo 'KVM internal error. Suberror: 1' >&2; echo RAX=0 >&2; " + HANGS,
            "a test guest on kvm hung at popcnt: KVM internal error. Suberror: 1",
        ),
    ],
)
def test_hardware_that_runs_no_guest(
    qemu, kvm, tools_env, monkeypatch: pytest.MonkeyPatch, script, problem
) -> None:
    qemu(script)
    if HANGS in script:
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


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("echo ran", "kvm"),
        ("", "tcg"),  # it ended, with no guest seen
        ("echo ran; exit 1", "tcg"),
        (HANGS, "tcg"),
        ("echo ran; " + HANGS, "tcg"),
    ],
)
def test_on_arm_a_guest_says_so_and_turns_itself_off(
    qemu, kvm, tools_env, monkeypatch: pytest.MonkeyPatch, script, name
) -> None:
    monkeypatch.setattr(accel, "_PROBE_TIMEOUT", 0.3)
    qemu(script, "aarch64")
    assert accel.choose("auto", "aarch64", "aarch64", tools_env).name == name


ANSWERS = """\
read -r a; read -r b; read -r c
case $c in *quit*) echo '{"return": {"status": "prelaunch", "running": false}}';; esac"""


@pytest.mark.parametrize(
    ("script", "name"), [(ANSWERS, "kvm"), ("", "tcg"), ("exit 1", "tcg"), (HANGS, "tcg")]
)
@pytest.mark.parametrize("arch", ["riscv64", "s390x", "ppc64le"])
def test_elsewhere_qemu_has_to_answer_with_its_cpus_made(
    qemu, kvm, tools_env, monkeypatch: pytest.MonkeyPatch, script, name, arch
) -> None:
    monkeypatch.setattr(accel, "_PROBE_TIMEOUT", 0.3)
    qemu(script, accel.qemu_binary(arch).removeprefix("qemu-system-"))
    assert accel.choose("auto", arch, arch, tools_env).name == name


def runs(argv: Path) -> int:
    """How often QEMU ran since the last call."""
    found = len(argv.with_name("runs").read_text()) if argv.with_name("runs").exists() else 0
    argv.with_name("runs").unlink(missing_ok=True)
    return found


def counted(script: str, tmp_path: Path) -> str:
    return f"printf x >>{tmp_path}/runs\n{script}"


@pytest.mark.parametrize("script", ["exit 33", ABORTS, "exit 1"])
def test_a_boot_of_the_host_pays_once(qemu, kvm, tools_env, tmp_path, script) -> None:
    home = tmp_path / "home"
    home.mkdir()
    argv = qemu(counted(script, tmp_path))
    first = accel.choose("auto", NATIVE, NATIVE, tools_env, home)
    assert runs(argv) == 1
    assert accel.choose("auto", NATIVE, NATIVE, tools_env, home) == first
    assert runs(argv) == 0
    qemu(counted(script, tmp_path) + "  # another QEMU")
    accel.choose("auto", NATIVE, NATIVE, tools_env, home)
    assert runs(argv) == 1


@pytest.mark.parametrize(
    ("script", "lasts"),
    [
        ("exit 33", True),
        (ABORTS, True),
        ("echo 'KVM internal error. Suberror: 1' >&2; " + HANGS, True),
        (HANGS, False),  # a busy host, perhaps
        ("echo 'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy' >&2; exit 1", False),
        ("echo \"qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory\" >&2; exit 1",
         False),
        ("echo \"qemu: could not load PC BIOS 'bios-256k.bin'\" >&2; exit 1", False),
    ],
)  # fmt: skip
def test_what_may_pass_is_seen_again_after_a_while(
    qemu, kvm, tools_env, tmp_path, monkeypatch: pytest.MonkeyPatch, script, lasts
) -> None:
    monkeypatch.setattr(accel, "_PROBE_TIMEOUT", 0.3)
    argv = qemu(counted(script, tmp_path))
    now = realtime.monotonic()
    for later, runs_again in ((0, 1), (60, 0), (3600, not lasts), (86400, not lasts)):
        monkeypatch.setattr(realtime, "monotonic", lambda later=later: now + later)
        with monkeypatch.context() as patch:
            patch.setattr(accel.process, "run", run_with_real_time(argv))
            accel.choose("auto", NATIVE, NATIVE, tools_env, tmp_path)
        assert runs(argv) == runs_again


def run_with_real_time(argv: Path):
    """``process.run`` with the clock that it began with."""
    from pytest_lima.lima import process

    real = process.run

    def run(*args, **more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(realtime, "monotonic", time.monotonic)
            return real(*args, **more)

    return run


def test_a_device_that_other_people_may_use_now_is_no_known_one(
    qemu, kvm, tools_env, tmp_path
) -> None:
    argv = qemu(counted("exit 33", tmp_path))
    kvm(usable=False)
    accel.choose("auto", NATIVE, NATIVE, tools_env, tmp_path)
    assert runs(argv) == 0
    kvm()
    assert accel.choose("auto", NATIVE, NATIVE, tools_env, tmp_path).name == "kvm"
    assert runs(argv) == 1


def test_a_vm_that_could_not_run_is_believed_more(qemu, kvm, tools_env, tmp_path) -> None:
    qemu("exit 33")
    assert accel.choose("auto", NATIVE, NATIVE, tools_env, tmp_path).name == "kvm"
    accel.note_failure("kvm", NATIVE, tools_env, tmp_path, "KVM internal error. Suberror: 1")
    found = accel.choose("auto", NATIVE, NATIVE, tools_env, tmp_path)
    assert found.name == "tcg"
    assert (found.warning or "").endswith("KVM internal error. Suberror: 1")
    with pytest.raises(HostError) as caught:
        accel.choose("kvm", NATIVE, NATIVE, tools_env, tmp_path)
    assert caught.value.seen == "KVM internal error. Suberror: 1"


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
