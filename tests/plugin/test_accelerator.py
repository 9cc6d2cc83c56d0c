"""An accelerator that runs the test guest and no VM: emulation takes over, if it may."""

from __future__ import annotations

import json
import os
import sys

import pytest

from pytest_lima.lima import host

# For every process of a run: a /dev/kvm that is there, and can be opened.
CONFTEST = """
    import pathlib, types
    from pytest_lima.lima import accel

    there = types.SimpleNamespace(exists=lambda: True)
    accel.Path = lambda *parts: there if parts == ("/dev/kvm",) else pathlib.Path(*parts)
    accel.os = types.SimpleNamespace(R_OK=4, W_OK=2, access=lambda path, mode: True)
"""
KVM_ERROR = ["KVM internal error. Suberror: 1", "emulation failure", "RAX=0000000000000000 RBX=0"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="KVM is Linux's"),
    pytest.mark.skipif(host.native_arch() not in ("x86_64", "aarch64"), reason="others are asked"),
]


@pytest.fixture
def auto(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_ACCEL", "auto")
    monkeypatch.delenv("PYTEST_LIMA_TIMEOUT_FACTOR")
    pytester.makeconftest(CONFTEST)


def probes(fake_lima) -> int:
    calls = fake_lima.calls(program=f"qemu-system-{host.native_arch()}")
    return sum("-no-reboot" in call.argv for call in calls)


@pytest.mark.usefixtures("auto")
def test_a_vm_that_kvm_cannot_run_is_emulated_with_one_warning(pytester, fake_lima):
    fake_lima.scenario(kvm_fails=KVM_ERROR)
    pytester.makepyfile("""
        def test_one(lima):
            assert lima.run("echo hello").stdout == "hello\\n"
        def test_two(lima_factory, lima_settings):
            assert lima_factory(name="db").run("true").ok
    """)
    done = pytester.runpytest_subprocess()
    done.assert_outcomes(passed=2)
    said = done.stdout.str() + done.stderr.str()
    assert said.count("kvm does not work here, the VM is emulated and slow") == 1
    assert "KVM internal error. Suberror: 1" in said
    assert len(fake_lima.calls("start")) == 3  # one too many, at the very first
    assert probes(fake_lima) == 1

    # A later run doesn't try again, and pays for no test guest.
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
    assert len(fake_lima.calls("start")) == 5
    assert probes(fake_lima) == 1
    fake_lima.assert_clean()


@pytest.mark.usefixtures("auto")
def test_nothing_is_kept_of_what_another_took_the_place_of(pytester, fake_lima):
    fake_lima.scenario(kvm_fails=KVM_ERROR)
    pytester.makepyfile("def test_one(lima_factory): lima_factory().run('true')")
    pytester.runpytest_subprocess("--lima-keep=on-failure").assert_outcomes(passed=1)
    fake_lima.assert_clean()


@pytest.mark.usefixtures("auto")
def test_a_fresh_vm_is_emulated_too(pytester, fake_lima):
    fake_lima.scenario(kvm_fails=KVM_ERROR)
    pytester.makepyfile("def test_one(lima_fresh): assert lima_fresh.run('true').ok")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    fake_lima.assert_clean()


@pytest.mark.usefixtures("auto")
def test_workers_fall_back_together(pytester, fake_lima):
    fake_lima.scenario(kvm_fails=KVM_ERROR)
    pytester.makepyfile("""
        import pytest
        @pytest.mark.parametrize("n", range(4))
        def test_it(lima, n):
            assert lima.run("true").ok
    """)
    pytester.runpytest_subprocess("-n2", "--dist=load").assert_outcomes(passed=4)
    assert len(fake_lima.calls("create")) == 2
    fake_lima.assert_clean()


@pytest.mark.usefixtures("auto")
def test_an_accelerator_that_was_named_is_an_error(pytester, fake_lima):
    fake_lima.scenario(kvm_fails=KVM_ERROR)
    pytester.makepyfile("def test_one(lima): pass")
    done = pytester.runpytest_subprocess("--lima-accel=kvm", "--lima-timeout=100")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([
        "*AcceleratorError: the VM pl-* did not start",
        "*seen: KVM internal error. Suberror: 1*",
        "*do: this host's accelerator can't run the guest*--lima-accel=tcg*",
    ])  # fmt: skip
    assert done.duration < 60  # at once, and not at the end of its time
    assert len(fake_lima.calls("start")) == 1
    fake_lima.assert_clean()


@pytest.mark.usefixtures("auto")
def test_a_vm_that_ends_of_it_is_emulated_as_well(pytester, fake_lima):
    fake_lima.scenario(kvm_fails=["Could not access KVM kernel module: Permission denied"])
    pytester.makepyfile("def test_one(lima): assert lima.run('true').ok")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    fake_lima.assert_clean()


@pytest.mark.usefixtures("auto")
def test_a_verdict_is_no_secret_and_no_instance(pytester, fake_lima):
    pytester.makepyfile("def test_one(lima): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    known = json.loads((fake_lima.home / "_accel.json").read_text())
    assert set(known) == {"boot", "verdicts"}
    [verdict] = known["verdicts"].values()
    assert set(verdict) == {"problem", "lasting", "seen"}
    assert os.environ["HOME"] not in json.dumps(known)
    fake_lima.assert_clean()
