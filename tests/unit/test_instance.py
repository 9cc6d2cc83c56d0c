from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_lima import Instance, lima_instance
from pytest_lima.errors import (
    CommandError,
    CommandTimeoutError,
    InstanceDiedError,
    LimaError,
)
from pytest_lima.guest import readiness


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_INTERVAL", 0.02)


@pytest.fixture
def vm(fake_lima) -> Iterator[Instance]:
    with lima_instance(engine="docker", cpus=3, memory=2) as one:
        yield one


def test_what_it_knows_of_itself(vm, fake_lima) -> None:
    assert (vm.vmtype, vm.cpus, vm.memory) == ("qemu", 3, 2048)
    assert vm.dir == fake_lima.home / vm.name
    assert vm.run("whoami").stdout == f"{vm.user}\n"
    assert vm.boot_seconds > 0
    assert vm.status == "Running"
    assert repr(vm) == f"<Instance {vm.name} qemu {vm.arch}>"
    assert "Linux version" in vm.console_log()
    assert vm.limactl("list", "--format=json", vm.name).ok
    refused = vm.limactl("frobnicate")
    assert not refused.ok and refused.returncode == 2  # it isn't raised
    fake_lima.forget_unknown()

    assert vm.docker_host == f"unix://{vm.dir / 'pl' / 'docker.sock'}"
    with pytest.raises(LimaError, match="was started without containerd") as caught:
        _ = vm.containerd_address
    assert "--lima-engine=containerd" in str(caught.value)

    # Its file for OpenSSH leads there, and only there.
    argv = ["ssh", "-F", str(vm.ssh_config), f"lima-{vm.name}", "whoami"]
    before = vm.ssh_config.stat().st_ino, vm.ssh_config.stat().st_mtime_ns
    assert (vm.ssh_config.stat().st_ino, vm.ssh_config.stat().st_mtime_ns) == before
    assert subprocess.run(argv, capture_output=True, timeout=30).stdout.decode() == f"{vm.user}\n"
    (vm.dir / "pl" / "known_hosts").write_text("")
    assert subprocess.run(argv, capture_output=True, timeout=30).returncode == 255

    assert vm.cloud_init_status()["status"] == "done"
    vm.run("rm /bin/cloud-init", user="root")
    with pytest.raises(LimaError, match="cloud-init's status can't be read"):
        vm.cloud_init_status()


def test_commands_and_files(vm, tmp_path) -> None:
    seen: list[tuple[str, bytes]] = []
    result = vm.run(
        "read line; echo $line $V $(pwd | sed 's|.*/||') >&2; exit 3",
        check=False, timeout=20, input="in", env={"V": "env"}, cwd="/tmp",
        on_output=lambda name, data: seen.append((name, data)),
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (3, "in env tmp\n")
    assert seen == [("stderr", b"in env tmp\n")]
    with pytest.raises(CommandError):
        vm.run(["false"], user="root")
    with pytest.raises(CommandTimeoutError):
        vm.run("sleep 30", timeout=0.2)

    vm.write_text("/tmp/text", "ü")
    assert vm.read_text("/tmp/text") == "ü"
    vm.write_bytes("/tmp/bytes", b"\xff")
    assert vm.read_bytes("/tmp/bytes") == b"\xff"
    with pytest.raises(UnicodeDecodeError):
        vm.read_text("/tmp/bytes")
    vm.get("/tmp/text", str(tmp_path / "back"))
    vm.put(str(tmp_path / "back"), "/tmp/again")
    assert vm.read_text("/tmp/again") == "ü"

    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: outputs.append(vm.run(f"echo {n}").stdout))
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == sorted(f"{n}\n" for n in range(12))


def test_a_connection_that_broke_is_made_again_and_a_vm_that_died_is_named(vm, fake_lima) -> None:
    vm.run("true")
    vm._link.get().close()
    assert vm.run("echo again").stdout == "again\n"
    forward = Path(vm.docker_host.removeprefix("unix://"))
    vm.disconnect()
    assert not forward.exists()
    assert vm._booted.starting.poll() is not None
    assert vm.status == "Running"
    vm.disconnect()
    assert vm.run("echo back").stdout == "back\n"

    fake_lima.crash(vm.name)
    for use in (lambda: vm.run("true"), lambda: vm.read_bytes("/etc/hostname"), vm.reboot,
                lambda: vm.put(Path(__file__), "/tmp/x")):  # fmt: skip
        with pytest.raises(InstanceDiedError, match=f"the VM {vm.name} has died"):
            use()
    assert vm.status == "Stopped"
    vm.limactl("delete", "--force", vm.name)
    assert vm.status == "Gone"


def test_after_a_reboot_it_is_the_same(vm, monkeypatch) -> None:
    host, before = vm.docker_host, vm._booted.connection
    seconds = vm.boot_seconds
    vm.reboot()
    assert not before.alive
    assert vm.docker_host == host
    assert vm.boot_seconds != seconds
    assert vm.run("echo up").stdout == "up\n"

    # One that failed doesn't lose the machine.
    def fails(booted: object, timeout: float | None) -> None:
        booted.connection.close()  # type: ignore[attr-defined]
        raise LimaError("it failed")

    monkeypatch.setattr(vm._boot, "reboot", fails)
    with pytest.raises(LimaError, match="it failed"):
        vm.reboot()
    assert vm.run("echo still").stdout == "still\n"
