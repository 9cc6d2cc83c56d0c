"""The fake limactl: what the engine sees of it is what Lima's facts say, faults included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from fakelima.hearing import hearing

from pytest_lima import lima_instance
from pytest_lima.errors import (
    CommandTimeoutError,
    HostKeyError,
    InstanceDiedError,
    LimactlVersionError,
    LimaError,
    ProvisionError,
    ReadyTimeoutError,
    StartError,
)
from pytest_lima.guest import answers, pinning
from pytest_lima.lima import accel, host
from pytest_lima.settings import resolve

ROOT = Path(__file__).parents[2]


def boot_fails(error: type[LimaError], match: str, **spec: object) -> LimaError:
    with pytest.raises(error, match=match) as caught, lima_instance(**spec):
        raise AssertionError("it booted")
    return caught.value


def test_a_boot_takes_a_second_and_leaves_nothing(fake_lima):
    begun = time.monotonic()
    with lima_instance() as vm:
        assert time.monotonic() - begun < 30  # 0.8 s here; a busy machine needs longer
        assert fake_lima.instances() == fake_lima.records() == [vm.name]
        assert vm.status == "Running"
        assert fake_lima.processes()
    fake_lima.assert_clean()
    commands = [call.command for call in fake_lima.calls()]
    assert commands == ["--version", "template", "create", "start", "list", "list", "delete"]


def test_the_guest_runs_commands_and_keeps_files(fake_lima, tmp_path):
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("deep")
    with lima_instance() as vm:
        assert vm.run("pwd").stdout == f"/home/{vm.user}.guest\n"
        assert vm.run(["id", "-un"], user="root").stdout == "root\n"
        assert vm.run("cat; exit 3", input="in", check=False).stdout == "in"
        assert vm.run("docker ps", check=False).returncode == 127
        vm.write_text("/etc/greeting", "hello")
        assert vm.run("cat /etc/greeting").stdout == vm.read_text("/etc/greeting") == "hello"
        assert not Path("/etc/greeting").exists()
        vm.put(tmp_path / "tree", "/tmp/tree")
        vm.get("/tmp/tree", tmp_path / "back")
        assert (tmp_path / "back" / "sub" / "file").read_text() == "deep"
        with pytest.raises(LimaError, match="No such file"):
            vm.read_text("missing")
        with pytest.raises(CommandTimeoutError, match="raise timeout"):
            vm.run("sleep 1234", timeout=0.2)
        assert vm.run("ps -ax | grep -c '[s]leep 1234'", check=False).stdout == "0\n"


def test_a_reboot_keeps_the_disk_and_the_host_key(fake_lima):
    with lima_instance() as vm:
        before = vm.run("cat /proc/sys/kernel/random/boot_id").stdout
        vm.run("touch /etc/on-disk /run/in-memory")
        vm.reboot()
        assert vm.run("cat /proc/sys/kernel/random/boot_id").stdout != before
        assert vm.run("test -e /etc/on-disk && ! test -e /run/in-memory").ok


def test_engines_answer_over_forwarded_sockets(fake_lima):
    with lima_instance(engine="both") as vm:
        for _ in range(2):
            assert answers.ping("docker", Path(vm.docker_host.removeprefix("unix://"))) == "OK"
            assert answers.ping("containerd", Path(vm.containerd_address)) == "1.7.24"
            vm.reboot()
    fake_lima.assert_clean()


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["frobnicate"], "a command the engine doesn't use"),
        (["start", "--timeout=9s", "x"], "start before create"),
        (["start", "x"], "--timeout"),
        (["create", "--name=a--b", "/dev/null"], "no name for an instance"),
        (["delete", "--force", "--now", "x"], "the flag --now"),
    ],
)
def test_an_unknown_call_fails_the_test(fake_lima, argv, why):
    limactl = host.caller(str(fake_lima.limactl), str(fake_lima.home), os.environ)
    assert limactl.run(*argv).returncode == 2
    with pytest.raises(AssertionError, match=why):
        fake_lima.assert_all_known()
    fake_lima.forget_unknown()


def test_a_variable_that_should_be_scrubbed_is_refused(fake_lima):
    env = {**os.environ, "LIMA_HOME": str(fake_lima.home), "LIMA_SHELL": "/bin/sh"}
    done = subprocess.run([fake_lima.limactl, "--version"], env=env, check=False)
    assert done.returncode == 2
    assert "LIMA_SHELL" in fake_lima.unknown()[0]
    fake_lima.forget_unknown()


def test_an_instance_is_created_once(fake_lima):
    with lima_instance() as vm:
        done = vm.limactl("create", f"--name={vm.name}", fake_lima.template())
        assert done.returncode == 2
    assert "already exists" in fake_lima.unknown()[0]
    fake_lima.forget_unknown()


@pytest.mark.parametrize(
    ("scenario", "error", "match"),
    [
        ("old-version", LimactlVersionError, "1.2.3 is too old"),
        ("create-fails", StartError, "failed to download"),
        ("start-fails", StartError, "initialize kvm: Permission denied"),
        ("provision-failed", ProvisionError, "Unable to locate package nosuchpackage"),
        ("cloud-init-failed", ProvisionError, "no such group"),
        ("no-boot-marker", ProvisionError, "lima-boot-done is missing"),
        ("wrong-host-key", HostKeyError, "another machine answers"),
    ],
)
def test_a_boot_that_fails_says_why_and_leaves_nothing(fake_lima, scenario, error, match):
    fake_lima.scenario(scenario)
    boot_fails(error, match)
    fake_lima.assert_clean()


def test_a_provision_script_really_runs(fake_lima):
    with lima_instance(provision="echo provisioned >/etc/marker") as vm:
        assert vm.read_text("/etc/marker") == "provisioned\n"
    error = boot_fails(ProvisionError, "echo to-be-seen", provision="echo to-be-seen; exit 7")
    assert error.seen == "to-be-seen"


def test_one_template_has_a_scenario_of_its_own(fake_lima):
    boot_fails(ProvisionError, "nosuch", template=fake_lima.template("provision-failed"))
    with lima_instance(template=fake_lima.template()) as vm:
        assert vm.run("true").ok


@pytest.mark.parametrize(
    ("values", "seconds", "error", "match"),
    [
        ({"name": "never-ready"}, 6, ReadyTimeoutError, "no SSH within"),
        ({"name": "hang"}, 1, StartError, "did not end in time"),
        ({"name": "hang", "hang": "start"}, 3, ReadyTimeoutError, "no SSH port from Lima"),
        ({"name": "slow", "boot_seconds": 60}, 4, ReadyTimeoutError, "no SSH host keys"),
    ],
)
def test_what_hangs_ends_at_the_timeout(fake_lima, monkeypatch, values, seconds, error, match):
    monkeypatch.setenv("PYTEST_LIMA_TIMEOUT", str(seconds))
    fake_lima.scenario(**values)
    boot_fails(error, match)
    fake_lima.assert_clean()


def test_a_create_that_was_killed_early_leaves_nothing(fake_lima, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_TIMEOUT", "1")
    fake_lima.scenario("hang", hang="create-early")
    boot_fails(StartError, "did not end in time")
    fake_lima.assert_clean()


def test_without_keys_on_the_console_the_first_one_is_taken(fake_lima, monkeypatch):
    monkeypatch.setattr(pinning, "_GRACE", 0.0)
    fake_lima.scenario("no-host-keys")
    with lima_instance() as vm:
        assert "HOST KEY" not in vm.console_log()
        assert vm.run("true").ok


def test_a_vm_that_dies_is_named(fake_lima):
    with lima_instance() as vm:
        fake_lima.crash(vm.name)
        with pytest.raises(InstanceDiedError):
            vm.run("true")
    fake_lima.assert_clean()


def test_the_clock_is_set(fake_lima):
    fake_lima.scenario("clock-off")
    with lima_instance() as vm:
        assert float(vm.run("date +%s.%N").stdout) == pytest.approx(time.time(), abs=1)


def test_vz_lives_in_the_host_agent(fake_lima, monkeypatch):
    monkeypatch.setattr(host, "sys", types.SimpleNamespace(platform="darwin"))
    fake_lima.scenario("vz")
    with lima_instance() as vm:
        assert vm.vmtype == "vz"
        assert vm.run("true").ok
        assert (vm.dir / "serialv.log").exists()
        assert not (vm.dir / "serial.log").exists()
    fake_lima.assert_clean()


@pytest.mark.parametrize(("probe", "warns"), [(33, False), (134, True)])
def test_the_accelerators_probe_is_answered(fake_lima, probe, warns):
    fake_lima.scenario(probe=probe)
    env = {**host.caller("limactl", str(fake_lima.home), os.environ).env}
    problem = accel._run_probe("kvm", "x86_64", env)
    assert bool(problem) is warns
    assert len(fake_lima.calls(program="qemu-system-x86_64")) == 1


def test_teardown_may_stop_instead(fake_lima, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_TEARDOWN", "stop")
    with lima_instance(settings=resolve({}, os.environ, {})) as vm:
        pass
    assert vm.status == "Stopped"
    assert fake_lima.instances() == [vm.name]
    fake_lima.wait_until(lambda: not fake_lima.processes())


def test_ctrl_c_leaves_nothing(fake_lima):
    fake_lima.scenario("slow", boot_seconds=60)
    code = "from pytest_lima import lima_instance\nwith lima_instance(): pass"
    child = subprocess.Popen(
        hearing([sys.executable, "-c", code]),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        fake_lima.wait_until(lambda: list(fake_lima.home.glob("*/qemu.pid")), 10)
        os.killpg(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=10)
    finally:
        child.kill()
    assert errors.decode().rstrip().endswith("KeyboardInterrupt")
    fake_lima.assert_clean()
