"""Where Lima can't run: cause and remedy, as a failure or, if that was asked for, as a skip."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

SUITE = """
    def test_one(lima): pass
    def test_two(lima_factory): lima_factory()
    def test_plain(): pass
"""


@pytest.fixture
def missing(request, fake_lima, monkeypatch):
    """Takes away what the test's parameter names; returns further arguments for pytest."""
    kind = request.param
    if kind == "qemu":
        folder = fake_lima.dir / "only-limactl"
        folder.mkdir()
        (folder / "limactl").symlink_to(fake_lima.limactl)
        monkeypatch.setenv("PATH", str(folder))
    elif kind == "old":
        fake_lima.scenario("old-version")
    elif kind == "root":
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    elif kind == "accelerator":
        fake_lima.scenario("broken-accelerator")
        return ["--lima-accel=kvm"]
    elif kind == "limactl":
        return ["--lima-limactl=/nowhere/limactl"]
    elif kind == "vz":
        return ["--lima-vmtype=vz"]
    elif kind == "long":
        return [f"--lima-home={fake_lima.dir / ('x' * 80)}"]
    return []


@pytest.mark.parametrize(
    ("missing", "what", "remedy"),
    [
        ("limactl", "/nowhere/limactl was not found", "install Lima"),
        ("old", "limactl 1.2.3 is too old", "install Lima 2.2 or later"),
        ("root", "limactl refuses to run as root", "run pytest as an ordinary user"),
        ("accelerator", "--lima-accel=kvm does not work on this machine", "--lima-accel=auto"),
        ("qemu", "qemu-* was not found", "install QEMU"),
        pytest.param(
            "vz",
            "vmtype vz exists on macOS only",
            "take --lima-vmtype=qemu",
            marks=pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has it"),
        ),
        ("long", "LIMA_HOME /* is too long by * bytes", "shorter directory with --lima-home"),
    ],
    indirect=["missing"],
)
def test_cause_and_remedy(pytester, fake_lima, missing, what, remedy):
    pytester.makepyfile(SUITE)
    failing = pytester.runpytest(*missing)
    failing.assert_outcomes(errors=1, failed=1, passed=1)
    failing.stdout.fnmatch_lines([
        f"lima: can't run here: {what}", f"*Error: {what}", f"  do: *{remedy}*",
        "*test_two*", f"E * *Error: {what}", f"E *  do: *{remedy}*",
    ])  # fmt: skip

    skipping = pytester.runpytest("--lima-missing=skip", "-rs", *missing)
    skipping.assert_outcomes(skipped=2, passed=1)
    skipping.stdout.fnmatch_lines([
        f"SKIPPED * Lima can't run here: {what}", f"*  do: *{remedy}*"])  # fmt: skip

    assert fake_lima.calls("create") == []
    assert not (fake_lima.dir / ("x" * 80)).exists()
    fake_lima.assert_clean()


def test_skip_is_for_the_machine_not_for_a_vm_that_fails(pytester, fake_lima):
    fake_lima.scenario("start-fails")
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest("--lima-missing=skip")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["StartError: the VM pl-* did not start"])
    fake_lima.assert_clean()


def test_nor_for_what_was_asked_of_a_vm_and_can_not_be_had(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest(
        "--lima-missing=skip", "--lima-start=warm", '--lima-set=.images[0].arch = "x86_64"'
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["HostError: pl-* can't be kept for warm starts"])
    fake_lima.assert_clean()


@pytest.mark.parametrize("state", ["no folder", "a file in its place"])
@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_state_directory_tests_without_a_vm_run(
    pytester, fake_lima, monkeypatch, state, workers
):
    folder = fake_lima.dir / "state"
    if state == "no folder":
        folder = Path("/proc/pytest-lima-has-no-folder-here")
    else:
        folder.mkdir()
        (folder / "pytest-lima").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    args = ["-n", "2"] if workers and pytest.importorskip("xdist") else []
    pytester.makepyfile("def test_plain(): pass\ndef test_it(lima): pass")
    result = pytester.runpytest_subprocess(*args)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([
        "HostError: the state directory * can't be made", f"  seen: *{folder}*",
        "  do: *XDG_STATE_HOME*",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    if not args:
        result.stdout.fnmatch_lines(["lima: can't run here: the state directory *"])
    assert fake_lima.calls("create") == []
