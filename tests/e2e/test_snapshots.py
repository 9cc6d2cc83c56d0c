"""States that are kept under names, put back, and doubled."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_lima import Instance, LimaError

FACTS = "hostname; cat /etc/machine-id /proc/sys/kernel/random/uuid"


def busy(vm: Instance) -> str:
    """Leave something on the disk, in memory and running; the pid of what runs."""
    vm.run("echo before >/root/disk; echo before >/dev/shm/memory", user="root")
    vm.run("systemd-run -q --unit=ticking sh -c 'exec sleep 100000'", user="root")
    return vm.run("pgrep -xf 'sleep 100000'").stdout


def mess_up(vm: Instance) -> None:
    vm.run(
        """echo after >/root/disk; echo after >/dev/shm/memory
        echo after-the-snapshot >/root/later; echo after-the-snapshot >/dev/shm/later
        systemctl stop ticking; useradd later; hostname later; date -s @1000000000; sync""",
        user="root",
    )


def assert_as_before(vm: Instance, pid: str) -> None:
    said = vm.run("cat /root/disk /dev/shm/memory; ls /root/later /dev/shm/later; id later; true",
                  user="root").stdout  # fmt: skip
    assert said == "before\nbefore\n"
    assert vm.run("pgrep -xf 'sleep 100000'").stdout == pid
    assert vm.run("systemctl is-active ticking").stdout == "active\n"
    assert vm.run("hostname").stdout == f"lima-{vm.name}\n"


def answers(vm: Instance) -> bool:
    import docker

    client = docker.DockerClient(base_url=vm.docker_host)
    try:
        return bool(client.ping())
    finally:
        client.close()


def lie_in(folder: Path, text: bytes) -> bool:
    """Whether the bytes are in the disk that a VM has written since it began."""
    return text in (folder / "disk").read_bytes()


def test_a_vm_goes_back_and_is_doubled(lima_fresh: Instance, lima_docker_host: str) -> None:
    vm = lima_fresh
    home = vm.dir.parent
    pid = busy(vm)
    vm.snapshot("busy")
    assert vm.run("pgrep -xf 'sleep 100000'").stdout == pid  # it runs on
    before = time.time()
    assert before - 1.2 < float(vm.run("date +%s.%N").stdout) < time.time() + 1.2

    mess_up(vm)
    assert lie_in(vm.dir, b"after-the-snapshot")
    vm.restore("busy")
    assert_as_before(vm, pid)
    assert not lie_in(vm.dir, b"after-the-snapshot")
    assert answers(vm)

    # A clone has the state, and shares nothing from then on.
    other = vm.clone()
    assert other.name != vm.name and other.status == vm.status == "Running"
    assert_as_before(other, pid)
    assert answers(other) and answers(vm)
    one, two = (each.run(FACTS).stdout.split() for each in (vm, other))
    assert not set(one) & set(two)
    mess_up(other)
    assert_as_before(vm, pid)
    other.reset()  # to what it first was
    assert_as_before(other, pid)

    # Back once more, and on from there.
    vm.snapshot("second")
    with pytest.raises(LimaError, match="no snapshot 'other'") as caught:
        vm.restore("other")
    assert "it has busy, second" in str(caught.value)
    vm.restore("second")
    assert_as_before(vm, pid)
    assert answers(vm)
    assert {path.name for path in (home / "_snapshots" / vm.name).iterdir()} == {"busy", "second"}
