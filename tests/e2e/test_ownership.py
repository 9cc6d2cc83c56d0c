"""Sharing, death and kills on real guests."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_lima import Instance, InstanceDiedError

if TYPE_CHECKING:
    from conftest import Run


def test_four_workers_share_one_vm(a_run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('number', range(40))\n"
        "def test_it(lima, lima_docker_host, number):\n"
        "    assert lima.run('echo hello').stdout == 'hello\\n'\n"
    )
    run = a_run(str(tmp_path), f"--rootdir={tmp_path}", "-n4")
    status, output = run.finish()
    assert status == 0
    assert "40 passed" in output
    assert len(re.findall(r"lima pl-\w+: ready", output)) == 1
    run.assert_nothing_left()


def test_a_panic_is_reported_to_a_running_command(lima_fresh: Instance) -> None:
    lima = lima_fresh
    crash = "sleep 1; echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"
    threading.Thread(
        target=lambda: lima.run(f"nohup sh -c '{crash}' >/dev/null 2>&1 &", user="root")
    ).start()
    with pytest.raises(InstanceDiedError, match="has died") as caught:
        lima.run("sleep 60", timeout=90)
    assert "Kernel panic" in str(caught.value)
    begun = time.monotonic()
    with pytest.raises(InstanceDiedError):
        lima.run("true")
    assert time.monotonic() - begun < 2


def test_a_killed_qemu_is_reported_to_a_running_command(lima_fresh: Instance) -> None:
    lima = lima_fresh
    pid = int((lima.dir / "qemu.pid").read_text())
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    threading.Timer(2, kill).start()
    with pytest.raises(InstanceDiedError, match="has died"):
        lima.run("sleep 60", timeout=90)
    assert time.monotonic() - killed[0] < 3  # two seconds are promised
