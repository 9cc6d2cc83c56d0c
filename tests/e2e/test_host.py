"""What this machine offers, and what Lima itself thinks of our templates."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima import HostError, Instance, Settings, lima_instance
from pytest_lima.lima import template
from pytest_lima.spec import machine_spec

_KVM = Path("/dev/kvm")


_needs_closed_kvm = pytest.mark.skipif(
    not _KVM.exists() or os.access(_KVM, os.R_OK | os.W_OK),
    reason="/dev/kvm can be opened here, or isn't there",
)


@_needs_closed_kvm
@pytest.mark.lima
def test_a_vm_is_emulated_where_kvm_can_t_be_opened(lima: Instance) -> None:
    """Lima would take /dev/kvm because it exists."""
    pid = json.loads(lima.limactl("list", "--format=json", lima.name).stdout)["driverPID"]
    qemu = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    assert "-accel tcg" in qemu
    assert "kvm" not in qemu


@_needs_closed_kvm
def test_kvm_by_name_is_an_error_where_it_can_t_be_opened(lima_settings: Settings) -> None:
    asked = replace(lima_settings, accel="kvm")
    with pytest.raises(HostError, match="kvm") as caught, lima_instance(settings=asked):
        pytest.fail("a VM was started")
    assert "group" in str(caught.value)


@pytest.mark.parametrize("vmtype", ["qemu", "vz"])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_lima_accepts_what_we_fill(tmp_path: Path, vmtype: str, arch: str) -> None:
    """Of its own templates too, with each option that changes the YAML."""
    spec = replace(
        machine_spec(cpus=3, memory="1GiB", disk=20, provision="true", mounts=[str(tmp_path)]),
        engines=frozenset({"docker", "containerd"}),
    )
    for name in ("template:docker", "template:podman", "template:debian-13"):
        source = tmp_path / "source.yaml"
        _limactl("template", "copy", "--embed-all", name, str(source))
        filled = template.fill(name, source.read_text(), spec, vmtype=vmtype, arch=arch)
        path = tmp_path / "filled.yaml"
        path.write_text(filled.text)
        _limactl("validate", str(path))


def _limactl(*args: str) -> None:
    done = subprocess.run(["limactl", *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
