"""pytest killed at random moments: on a real limactl, host agent and QEMU with an empty disk.

Nothing boots from an empty disk, so a run is killed while it makes and starts its VM, at a
fraction of what a guest costs. With ``ssh`` replaced by one that always succeeds, Lima takes
the VM for ready. ``PYTEST_LIMA_KILLS`` in the environment is the number of kills.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from conftest import Run

KILLS = int(os.environ.get("PYTEST_LIMA_KILLS", "12"))
SSH = '#!/bin/sh\ncase "$*" in *-V*) echo OpenSSH_9.2p1 >&2;; esac\nexit 0\n'


@pytest.fixture
def empty_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A template with nothing on its disk, and the ssh that goes with it."""
    qemu_img = shutil.which("qemu-img")
    assert qemu_img is not None
    disk = tmp_path / "empty.qcow2"
    subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
    template = tmp_path / "empty.yaml"
    template.write_text(
        f"images: [{{location: {disk}, arch: x86_64}}]\n"
        "firmware: {legacyBIOS: true}\ncpus: 1\nmemory: 64MiB\ndisk: 64MiB\n"
        # Lima takes the host's CPU wherever there is a /dev/kvm, which emulation refuses.
        "vmOpts: {qemu: {cpuType: {x86_64: max}}}\n"
    )
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    return template


def reapers_of(pid: int) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"])
            if "pytest_lima.ownership.reaper" in (one.info["cmdline"] or ())
            and str(pid) in one.info["cmdline"]]  # fmt: skip


def test_kills_at_random_moments_leave_nothing(
    a_run: Callable[..., Run], empty_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(lima): pass\n")
    chance = random.Random(4)  # the moments are the same in each run of this test
    # No command line of a run names its LIMA_HOME: what does is a VM's.
    run = a_run("test_it.py", f"--rootdir={tmp_path}", "--lima-accel=tcg", "-q",
                f"--lima-template={empty_disk}")  # fmt: skip
    for _ in range(KILLS):
        process = run.start(tmp_path)
        time.sleep(chance.uniform(0.3, 4.0))
        process.kill()
        process.communicate()
        if chance.random() < 0.1:
            run.assert_nothing_left(15)
    run.assert_nothing_left(15)


def test_what_a_killed_reaper_leaves_goes_with_the_next_run(
    a_run: Callable[..., Run], empty_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(lima): pass\n")
    run = a_run("test_it.py", f"--rootdir={tmp_path}", "--lima-accel=tcg", "-q",
                f"--lima-template={empty_disk}")  # fmt: skip
    seen: set[str] = set()

    def await_qemu() -> None:
        """Of an instance that no run before had, whose own are swept by now."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = {path.parent.name for path in run.home.glob("*/qemu.pid")}
            if found and not found & seen:
                seen.update(found)
                return
            time.sleep(0.05)
        raise AssertionError(f"no new VM beside {seen}")

    for count in range(1, 4):
        process = run.start(tmp_path)
        await_qemu()
        for reaper in reapers_of(process.pid):
            reaper.kill()
        process.kill()
        process.communicate()
        assert len(seen) == count
        assert set(run.instances()) <= seen
    process = run.start(tmp_path)
    await_qemu()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
    assert "which a killed run had left" in output
    run.assert_nothing_left(1)
