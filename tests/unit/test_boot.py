from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from pytest_lima import boot as boots
from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import (
    AcceleratorError,
    CommandError,
    HostKeyError,
    InstanceDiedError,
    ProvisionError,
    ReadyTimeoutError,
    StartError,
)
from pytest_lima.guest import pinning, power, readiness
from pytest_lima.guest.commands import CommandResult, run
from pytest_lima.guest.ssh import connect
from pytest_lima.lima import engines, evidence, host, paths, template
from pytest_lima.lima.accel import Accelerator
from pytest_lima.settings import resolve
from pytest_lima.spec import MachineSpec


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_INTERVAL", 0.02)


class Tries:
    """Boots over the fake limactl, and what they leave to be ended."""

    def __init__(self, fake, observer) -> None:
        self.fake = fake
        self.observer = observer
        self.name = paths.instance_name()
        self.booted: list[Booted] = []

    def create(self, spec: MachineSpec | None = None, timeout: float = 20) -> Boot:
        machine = host.inspect(resolve({}, os.environ, {}), os.environ)
        text = machine.limactl.template(self.fake.template())
        filled = template.fill("t", text, spec or MachineSpec(), vmtype="qemu", arch=machine.arch)
        boot = Boot(machine, self.name, filled, timeout, self.observer)
        yaml = paths.template_file(machine.limactl.home, self.name)
        yaml.write_text(filled.text)
        boot.create(yaml, ())
        return boot

    def start(self, boot: Boot) -> Booted:
        self.booted.append(boot.start())
        return self.booted[-1]

    def reboot(self, boot: Boot, timeout: float | None = None) -> Booted:
        self.booted.append(boot.reboot(self.booted[-1], timeout))
        return self.booted[-1]

    def fails(
        self, boot: Boot, kind: type[BaseException], match: str | None = None
    ) -> BaseException:
        """Start in vain: limactl has ended then, and so has the connection."""
        with pytest.raises(kind, match=match) as caught:
            boot.start()
        assert boot._child is not None
        assert boot._child.poll() is not None
        transports = [one for one in threading.enumerate() if isinstance(one, paramiko.Transport)]
        assert not any(one.is_active() for one in transports)
        return caught.value

    def end(self) -> None:
        for one in self.booted:
            one.connection.close()
            one.starting.stop()
            if one.forward:
                one.forward.close()


class Ended:
    """A `limactl start` that has ended."""

    def __init__(self, status: int) -> None:
        self.poll = lambda: status


@pytest.fixture
def tries(fake_lima, observer) -> Iterator[Tries]:
    one = Tries(fake_lima, observer)
    yield one
    one.end()


def test_from_a_template_to_a_ready_guest_and_through_a_reboot(tries, observer) -> None:
    boot = tries.create(MachineSpec(engines=engines.ENGINES["both"]))
    booted = tries.start(boot)
    folder = booted.info.dir / "pl"
    assert observer.all("phase") == [
        "creating", "booting", "provisioning", "waiting for containerd and docker",
    ]  # fmt: skip
    assert observer.told[-1] == ("ready", tries.name)
    assert observer.all("warn") == []
    assert booted.keys.source == f"the console log {booted.info.dir / 'serial.log'}"
    known = folder / "known_hosts"
    assert known.read_text().splitlines()[0].startswith(f"{tries.name} ")
    assert stat.S_IMODE(known.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert booted.forward and set(booted.forward.sockets) == {"docker", "containerd"}
    before = run(booted.connection, "cat /proc/sys/kernel/random/boot_id").stdout

    again = tries.reboot(boot)
    assert not booted.connection.alive
    assert run(again.connection, "cat /proc/sys/kernel/random/boot_id").stdout != before
    assert again.keys == booted.keys
    assert again.forward and again.forward.sockets == booted.forward.sockets
    assert all(path.exists() for path in again.forward.sockets.values())
    assert "rebooting" in observer.all("phase")
    assert len(observer.all("ready")) == 2


def test_a_vm_reboots_also_after_limactl_was_stopped(tries) -> None:
    """As whoever lets go of a VM does with a `limactl start` that still waits."""
    boot = tries.create()
    booted = tries.start(boot)
    booted.starting.stop()
    boot._child = Ended(-15)
    again = tries.reboot(boot)
    assert run(again.connection, "echo back").stdout == "back\n"


def test_a_vm_that_dies_while_it_reboots_is_told_at_once(tries, monkeypatch) -> None:
    boot = tries.create()
    tries.start(boot)
    monkeypatch.setattr(boots.power, "reboot", lambda _: tries.fake.crash(tries.name))
    with pytest.raises(InstanceDiedError, match="has died"):
        tries.reboot(boot)


def test_one_that_was_woken_up_and_refuses_to_reboot_is_still_led_to(tries, monkeypatch) -> None:
    """Its address would have changed."""
    boot = tries.create()
    booted = tries.start(boot)
    led: list[tuple[str, int]] = []

    def refuse(_: object) -> None:
        raise CommandError(CommandResult("reboot", 1, b"", b"no", 0.1))

    monkeypatch.setattr(boots.power, "reboot", refuse)
    monkeypatch.setattr(boot, "_lead_ssh_to", lambda address, port: led.append((address, port)))
    woken = replace(booted, booted_as=("pl-kept",))
    with pytest.raises(CommandError):
        boot.reboot(woken, None)
    port = booted.address.port
    assert led == [(boots.guest_address(("pl-kept", tries.name)), port),
                   (boots.guest_address(("pl-kept",)), port)]  # fmt: skip


def test_a_kernel_that_panics_in_its_boot_is_told_at_once(tries) -> None:
    boot = tries.create()
    said = "[ 1.7] Oops: int3: 0000 [#2]\n[ 1.8] Kernel panic - not syncing: Fatal exception\n"
    (boot._dir / "serial.log").write_text(said)
    with pytest.raises(StartError, match="has panicked") as caught:
        boot._check_alive()
    assert "Oops: int3" in (caught.value.seen or "")
    assert evidence.is_mishap(caught.value)


def test_so_is_a_kernel_that_panics_before_the_connection_has_ended(tries, monkeypatch) -> None:
    boot = tries.create()
    booted = tries.start(boot)

    def reboot(_: object) -> None:
        with (booted.info.dir / "serial.log").open("a") as console:
            console.write("[ 1.8] Kernel panic - not syncing: Fatal exception in interrupt\n")

    monkeypatch.setattr(boots.power, "reboot", reboot)
    with pytest.raises(InstanceDiedError, match="Fatal exception in interrupt"):
        tries.reboot(boot)


def test_without_keys_on_the_console_the_first_is_trusted_aloud(
    tries, observer, monkeypatch
) -> None:
    monkeypatch.setattr(pinning, "_GRACE", 0.0)
    tries.fake.scenario("no-host-keys")
    booted = tries.start(tries.create())
    [warning] = observer.all("warn")
    [(kind, key)] = booted.keys.keys.items()
    assert f"{tries.name} printed no SSH host key on its console; the {kind} key" in warning
    assert f"127.0.0.1:{booted.address.port} is trusted for this run" in warning
    assert (booted.info.dir / "pl" / "known_hosts").read_text() == f"{tries.name} {kind} {key}\n"
    # From now on it is the one.
    with pytest.raises(HostKeyError, match="not in the first connection"):
        connect(booted.address, replace(booted.keys, keys={kind: key[:-8] + "AAAAAAA="}))


def test_a_vm_that_does_not_start_is_told_in_qemus_words(tries) -> None:
    tries.fake.scenario("start-fails")
    error = tries.fails(tries.create(), StartError, "did not start")
    assert isinstance(error, StartError)
    assert "failed to initialize kvm: Permission denied" in (error.seen or "")
    assert "--lima-accel=tcg" in str(error)
    evidence = Path(error.log or "")
    assert evidence == tries.fake.home / "_failures" / f"{tries.name}.log"
    kept = evidence.read_text()
    assert "==> ha.stderr.log" in kept and "==> limactl-start.log" in kept
    assert "Permission denied" in kept


AGENT = "guest agent does not seem to be running; port forwards will not work"


def test_a_guest_agent_that_is_late_is_not_the_end(tries) -> None:
    """Lima looks for it for a minute, then tells of an error, and goes on to look for it."""
    boot = tries.create()
    boot._child = Ended(1)
    log = boot._dir / "ha.stdout.log"
    status = {"running": True, "degraded": True, "errors": [AGENT]}
    log.write_text(json.dumps({"status": status}) + "\n")
    boot._check_alive()
    with log.open("a") as file:
        file.write(json.dumps({"status": {"errors": [AGENT, "no probe"]}}) + "\n")
    with pytest.raises(StartError, match="did not start"):
        boot._check_alive()


def test_a_failed_script_is_told_with_the_guests_own_log(tries) -> None:
    tries.fake.scenario("provision-failed")
    error = tries.fails(tries.create(), ProvisionError, "a provision script failed")
    assert isinstance(error, ProvisionError)
    assert (error.seen or "").endswith("E: Unable to locate package nosuchpackage")
    assert "nosuchpackage" in Path(error.log or "").read_text()


def test_a_vm_that_dies_while_it_is_provisioned(tries, observer, monkeypatch) -> None:
    tries.fake.scenario("slow", boot_seconds=0, provision_seconds=60)

    def tick(line: str) -> None:
        if observer.all("phase")[-1] == "provisioning":
            tries.fake.crash(tries.name)

    monkeypatch.setattr(observer, "tick", tick)
    tries.fails(tries.create(), StartError, "did not start")


@pytest.mark.parametrize("phase", ["booting", "waiting for docker"])
def test_ctrl_c_ends_limactl_and_the_connection(tries, observer, monkeypatch, phase: str) -> None:
    def interrupt(instance: str, now: str) -> None:
        if now == phase:
            raise KeyboardInterrupt

    boot = tries.create(MachineSpec(engines=engines.ENGINES["docker"]))
    monkeypatch.setattr(observer, "phase", interrupt)
    if phase == "booting":
        with pytest.raises(KeyboardInterrupt):
            boot.start()
        assert boot._child is None
    else:
        tries.fails(boot, KeyboardInterrupt)
    assert not list(tries.fake.home.glob("*/pl/*.sock"))


def test_a_guest_that_ends_our_question_on_its_way_down_is_asked_again(tries, monkeypatch) -> None:
    """As systemd ends sessions, sshd may still take new ones. Only another boot counts."""
    boot = tries.create()
    tries.start(boot)
    ask, asked = power.boot_id, []

    def boot_id(connection: object) -> str:
        asked.append(connection)
        if len(asked) == 2:
            raise CommandError(CommandResult("cat boot_id", 137, b"", b"", 0.1))
        return ask(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(power, "boot_id", boot_id)
    assert tries.reboot(boot).connection.alive
    assert not asked[1].alive  # type: ignore[attr-defined]

    monkeypatch.setattr(power, "reboot", lambda connection: connection.close())
    with pytest.raises(ReadyTimeoutError, match="no SSH after the reboot within"):
        tries.reboot(boot, timeout=0.5)


def test_an_accelerator_that_fails_ends_the_boot_at_once(tries) -> None:
    boot = tries.create()
    boot._host = replace(boot._host, accelerator=Accelerator("kvm"))
    (boot._dir / "ha.stderr.log").write_text(
        '{"level": "debug", "msg": "qemu[stderr]: KVM internal error. Suberror: 1"}\n'
        '{"level": "debug", "msg": "qemu[stderr]: RAX=0000000000000000"}\n'
    )
    with pytest.raises(AcceleratorError) as caught:
        boot._check_alive()
    assert caught.value.seen == "KVM internal error. Suberror: 1"
    assert "--lima-accel=tcg" in (caught.value.remedy or "")
    # Emulation has none: whatever says so, nothing else can be tried.
    boot._host = replace(boot._host, accelerator=Accelerator("tcg"))
    with pytest.raises(StartError) as other:
        boot._check_alive()
    assert type(other.value) is StartError


@pytest.mark.parametrize(
    ("cause", "kind", "remedy"),
    [
        ("its disk could not be written: no space left on device", StartError, "free disk space"),
        ("QEMU could not go on with the guest: internal-error", AcceleratorError, "another host"),
    ],
)
def test_a_guest_that_qemu_has_stopped_is_not_waited_for(tries, cause, kind, remedy) -> None:
    boot = tries.create()
    boot._host = replace(boot._host, accelerator=Accelerator("kvm"))
    boot._standstill.cause = lambda: cause
    with pytest.raises(kind) as caught:
        boot._check_alive()
    assert type(caught.value) is kind
    assert caught.value.seen == cause
    assert remedy in (caught.value.remedy or "")


def test_a_reboot_is_not_waited_for_longer_than_its_boot_tells(tries, monkeypatch) -> None:
    monkeypatch.setattr(power, "_SHORTEST", 0.2)
    boot = tries.create(timeout=600)
    booted = tries.start(boot)
    assert booted.cold_seconds is not None and 0 < booted.cold_seconds <= booted.seconds
    tries.booted[-1] = replace(booted, cold_seconds=0.1)
    monkeypatch.setattr(power, "reboot", lambda connection: connection.close())
    with pytest.raises(ReadyTimeoutError, match="is not back 0 s after it was asked") as caught:
        tries.reboot(boot)
    told = str(caught.value)
    assert "3 times the 0 s of its cold boot" in told and "reboot(timeout=…)" in told
    assert "no SSH after the reboot" in told
    assert "--lima-timeout" not in caught.value.remedy


def test_what_keeps_it_knows_how_long_it_took_to_boot(tries) -> None:
    seen: list[float | None] = []
    tries.booted.append(tries.create().start(lambda booted: seen.append(booted.cold_seconds)))
    assert seen == [tries.booted[-1].cold_seconds] and seen != [None]
