from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_lima.errors import HostError, LimactlMissingError, LimactlVersionError
from pytest_lima.lima import accel, host
from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.host import Host
from pytest_lima.settings import Settings

ARCH = host.native_arch()


@pytest.fixture
def settings(short_path: Path) -> Settings:
    return Settings(home=str(short_path / "home"), accel="tcg", vmtype="qemu")


@pytest.fixture
def env(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine with limactl and QEMU, and a user who isn't root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in (f"qemu-system-{ARCH}", "qemu-img"):
        tool(name, "exit 33")
    # Only builtins: this PATH has nothing else.
    tool("limactl", 'echo "limactl version 2.2.0"')
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}


def test_a_machine_that_has_it_all(settings: Settings, env: dict[str, str]) -> None:
    found = host.inspect(settings, env)
    assert (found.version, found.vmtype, found.arch) == ("2.2.0", "qemu", ARCH)
    assert found.accelerator == Accelerator("tcg")
    assert found.limactl.path == f"{env['PATH']}/limactl"
    assert str(found.limactl.home) == settings.home
    assert found.limactl.env[f"QEMU_SYSTEM_{ARCH.upper()}"].startswith(f"qemu-system-{ARCH} ")


def test_root_is_refused_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(HostError) as caught:
        host.inspect(settings, {"PATH": "/nonexistent"})
    assert str(caught.value).splitlines() == [
        "limactl refuses to run as root",
        "  seen: this process runs as root",
        "  do: run pytest as an ordinary user",
    ]


def test_what_is_missing_is_named(settings: Settings, env: dict[str, str], tool) -> None:
    for name in ("qemu-img", f"qemu-system-{ARCH}"):
        Path(env["PATH"], name).unlink()
        with pytest.raises(HostError, match=f"{name} was not found"):
            host.inspect(settings, env)
    tool("limactl", "echo limactl version 1.0.0")
    with pytest.raises(LimactlVersionError):
        host.inspect(settings, env)
    Path(env["PATH"], "limactl").unlink()
    with pytest.raises(LimactlMissingError):
        host.inspect(settings, env)


def test_a_home_that_is_too_long(settings: Settings, env: dict[str, str]) -> None:
    with pytest.raises(HostError, match="too long"):
        host.inspect(Settings(home="/tmp/" + "x" * 100), env)


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64")],
)
def test_architectures_have_limas_names(monkeypatch, machine: str, arch: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert host.native_arch() == arch


@pytest.mark.parametrize(
    ("asked", "spec", "arch"),
    [(None, None, ARCH), ("armv7l", None, "armv7l"), ("riscv64", "armv7l", "armv7l"),
     ("amd64", None, "x86_64"), (None, "arm64", "aarch64")],
)  # fmt: skip
def test_a_specs_architecture_comes_before_the_options(
    settings: Settings, env: dict[str, str], tool, short_path, asked, spec, arch
) -> None:
    tool(accel.qemu_binary(arch), "exit 33")
    options = Settings(home=settings.home, accel="tcg", vmtype="qemu", arch=asked)
    assert host.inspect(options, env, arch=spec).arch == arch


@pytest.mark.parametrize(
    ("platform", "wanted", "arch", "kind"),
    [
        ("linux", "auto", ARCH, "qemu"),
        ("linux", "qemu", ARCH, "qemu"),
        ("darwin", "auto", ARCH, "vz"),
        ("darwin", "auto", "riscv64", "qemu"),
        ("darwin", "qemu", ARCH, "qemu"),
        ("darwin", "vz", ARCH, "vz"),
    ],
)
def test_drivers(settings, env, tool, monkeypatch, platform, wanted, arch, kind) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    tool("qemu-system-riscv64", "")
    found = host.inspect(settings, env, vmtype=wanted, arch=arch)
    assert found.vmtype == kind
    assert (found.accelerator == Accelerator("vz")) == (kind == "vz")


def test_vz_needs_no_qemu(settings, env, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for name in ("qemu-img", f"qemu-system-{ARCH}"):
        Path(env["PATH"], name).unlink()
    assert host.inspect(settings, env, vmtype="vz").accelerator.name == "vz"


def test_vz_is_for_macos(settings, env, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(HostError, match="vmtype vz exists on macOS only") as caught:
        host.inspect(settings, env, vmtype="vz")
    assert "this is linux" in str(caught.value)


@pytest.mark.parametrize("kind", ["wsl2", "krunkit", "QEMU"])
def test_other_drivers_of_a_template_are_refused(settings, env, kind: str) -> None:
    with pytest.raises(HostError, match=f"vmType {kind} is none that pytest-lima") as caught:
        host.inspect(settings, env, vmtype=kind)
    assert "--lima-vmtype=qemu" in str(caught.value)


def test_reading_a_template_takes_limactl_alone(settings, env) -> None:
    """It may be for another architecture than the QEMU that is here."""
    Path(env["PATH"], f"qemu-system-{ARCH}").unlink()
    found, version = host.find(settings, env)
    assert (found.path, version) == (f"{env['PATH']}/limactl", "2.2.0")
    assert str(found.home) == settings.home


@pytest.mark.parametrize(
    ("name", "factor", "seconds"),
    [("kvm", None, 100), ("tcg", None, 1000), ("tcg", 2.5, 250), ("kvm", 3.0, 300)],
)
def test_emulation_has_ten_times_as_long(settings, env, name, factor, seconds) -> None:
    one = host.inspect(settings, env)
    machine = Host(one.limactl, one.version, one.vmtype, one.arch, Accelerator(name))
    assert machine.timeout(Settings(timeout=100, timeout_factor=factor)) == seconds


def test_a_caller_for_anothers_instance(env) -> None:
    lima = host.caller("/opt/limactl", "/other/home", env)
    assert (lima.path, lima.home) == ("/opt/limactl", Path("/other/home"))
    assert lima.env["LIMA_HOME"] == "/other/home"
