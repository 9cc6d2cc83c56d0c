"""Promises 24 to 33: what can go wrong is told so that a person can act on it."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from pytest_lima import (
    CommandTimeoutError,
    HostError,
    HostKeyError,
    LimactlMissingError,
    LimactlVersionError,
    LimaError,
    ProvisionError,
    ReadyTimeoutError,
    StartError,
    TemplateError,
    lima_instance,
)


def refused(kind: type[LimaError], **spec: object) -> str:
    with pytest.raises(kind) as caught, lima_instance(**spec):
        raise AssertionError("it booted")
    text = str(caught.value)
    assert len(text.splitlines()) <= 5
    return text


def test_24_a_failed_provision_script_fails_the_boot(fake_lima):
    fake_lima.scenario("provision-failed")
    text = refused(ProvisionError)
    assert "E: Unable to locate package nosuchpackage" in text
    assert "  log: " in text
    fake_lima.assert_clean()


def test_24_so_does_an_error_of_cloud_init(fake_lima):
    fake_lima.scenario("cloud-init-failed")
    assert "no such group" in refused(ProvisionError)
    fake_lima.assert_clean()


def test_25_one_that_hangs_is_given_up(fake_lima, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_TIMEOUT", "5")
    fake_lima.scenario("ok", provision_seconds=60)
    text = refused(ReadyTimeoutError)
    assert "no end of cloud-init within" in text
    assert "--lima-timeout" in text
    fake_lima.assert_clean()


def test_26_an_image_that_can_not_be_had_is_named_and_not_tried_again(fake_lima):
    fake_lima.scenario("create-fails")
    assert "https://fake.invalid/disk.qcow2" in refused(StartError)
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_26_nor_one_that_is_not_what_its_digest_says(fake_lima):
    fake_lima.scenario("ok", create_error="expected digest `sha256:aa`, got `sha256:bb`")
    text = refused(StartError)
    assert "got `sha256:bb`" in text
    assert f"{fake_lima.env['XDG_CACHE_HOME']}/lima/download" in text or sys.platform == "darwin"
    assert len(fake_lima.calls("create")) == 1
    assert not [call for call in fake_lima.calls() if call.command in ("prune", "factory-reset")]
    fake_lima.assert_clean()


def test_27_no_limactl_or_an_old_one(fake_lima, monkeypatch):
    fake_lima.scenario("old-version")
    assert "install Lima 2.2" in refused(LimactlVersionError)
    monkeypatch.setenv("PYTEST_LIMA_LIMACTL", "/nowhere/limactl")
    assert "https://lima-vm.io" in refused(LimactlMissingError)
    fake_lima.assert_clean()


def test_27_root_and_a_machine_without_qemu(fake_lima, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_ACCEL", "kvm")
    fake_lima.scenario("broken-accelerator")
    assert "--lima-accel=auto" in refused(HostError)
    (fake_lima.dir / "bin" / "qemu-img").unlink()
    monkeypatch.setenv("PATH", str(fake_lima.dir / "bin"))
    assert "install QEMU" in refused(HostError)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "run pytest as an ordinary user" in refused(HostError)
    fake_lima.assert_clean()


def test_27_skipped_where_that_was_asked_for(pytester, fake_lima):
    fake_lima.scenario("old-version")
    pytester.makepyfile("def test_one(lima): pass\ndef test_two(lima): pass")
    pytester.runpytest_subprocess("--lima-missing=skip").assert_outcomes(skipped=2)
    fake_lima.assert_clean()


def test_28_qemu_s_own_words_when_it_does_not_start(fake_lima):
    fake_lima.scenario("start-fails")
    text = refused(StartError)
    assert "Could not access KVM kernel module: Permission denied" in text
    assert "--lima-accel=tcg" in text
    fake_lima.assert_clean()


def test_28_a_port_that_was_taken_meanwhile_is_tried_anew(fake_lima):
    taken = "qemu: -netdev user: Could not set up host forwarding rule 'tcp:127.0.0.1:1-:22'"
    fake_lima.scenario("start-fails", qemu_stderr=[taken])
    assert "host forwarding rule" in refused(StartError)
    assert len(fake_lima.calls("create")) == 1
    assert len(fake_lima.calls("start")) == 3
    fake_lima.assert_clean()


def test_28_a_kernel_that_panics_is_told_at_once(fake_lima):
    fake_lima.scenario(panics=9, panic=["[ 1.7] Kernel panic - not syncing: no init found"])
    begun = time.monotonic()
    assert "Kernel panic - not syncing: no init found" in refused(StartError)
    assert time.monotonic() - begun < 30  # and not after --lima-timeout
    assert len(fake_lima.calls("start")) == 1
    fake_lima.assert_clean()


def test_28_one_that_the_emulator_broke_is_booted_anew(fake_lima):
    said = ["[ 1.7] Oops: int3: 0000 [#2] PREEMPT SMP NOPTI", "RIP: 0010:sched_clock+0x5/0x40",
            "[ 1.8] Kernel panic - not syncing: Fatal exception in interrupt"]  # fmt: skip
    fake_lima.scenario(panics=1, panic=said)
    with lima_instance(engine="docker") as vm:
        assert vm.run("echo hello").stdout == "hello\n"
    assert len(fake_lima.calls("create")) == 1
    assert len(fake_lima.calls("start")) == 2
    fake_lima.assert_clean()


def test_29_a_home_that_is_too_long_is_measured(fake_lima, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_HOME", str(fake_lima.dir / ("long" * 20)))
    text = refused(HostError)
    assert "is too long by" in text
    assert "--lima-home" in text
    fake_lima.assert_clean()


def test_29_one_that_can_not_be_used_is_told(fake_lima, monkeypatch):
    (fake_lima.dir / "file").touch()
    monkeypatch.setenv("PYTEST_LIMA_HOME", str(fake_lima.dir / "file"))
    text = refused(HostError)
    assert "can't be used" in text
    assert "--lima-home" in text


def test_29_a_symlink_to_one_works(fake_lima, monkeypatch):
    fake_lima.home.mkdir()
    (fake_lima.dir / "link").symlink_to(fake_lima.home)
    monkeypatch.setenv("PYTEST_LIMA_HOME", str(fake_lima.dir / "link"))
    with lima_instance(engine="docker") as vm:
        assert vm.run("echo hello").stdout == "hello\n"
    fake_lima.assert_clean()


def test_30_a_command_that_takes_too_long_is_ended_in_the_guest(fake_lima):
    with lima_instance() as vm:
        with pytest.raises(CommandTimeoutError) as caught:
            vm.run("echo so far; sleep 4321", timeout=1)
        assert caught.value.stdout == "so far\n"
        assert vm.run("ps -ax | grep -c '[s]leep 4321'", check=False).stdout == "0\n"


def test_30_output_of_any_size_and_kind_comes_whole(fake_lima):
    with lima_instance() as vm:
        result = vm.run("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2; printf '\\377'")
        assert len(result.stdout_bytes) == 5_000_001
        assert len(result.stderr_bytes) == 3_000_000
        assert result.stdout.endswith("\ufffd")


def test_31_many_threads_at_once_queue(fake_lima):
    said: list[str] = []
    with lima_instance() as vm:
        threads = [
            threading.Thread(target=lambda n=n: said.append(vm.run(f"echo {n}").stdout))
            for n in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(said) == sorted(f"{n}\n" for n in range(12))


def test_32_another_machine_in_the_guest_s_place_gets_nothing(fake_lima):
    fake_lima.scenario("wrong-host-key")
    assert "nothing was sent to it" in refused(HostKeyError)
    fake_lima.assert_clean()


@pytest.mark.parametrize(
    "keys",
    [
        {"portForwards": [{"guestSocket": "/x.sock", "hostSocket": "/home"}]},
        {"portForwards": [{"guestPort": 1, "hostIP": "0.0.0.0"}]},
        {"copyToHost": [{"guest": "/x", "host": "/etc/x"}]},
        {"provision": [{"mode": "ansible", "playbook": "x.yaml"}]},
    ],
)
def test_33_a_template_that_reaches_out_is_refused_before_it_is_used(fake_lima, keys):
    assert "reaches outside its instance" in refused(
        TemplateError, template=fake_lima.template(keys=keys)
    )
    assert fake_lima.calls("create") == []
