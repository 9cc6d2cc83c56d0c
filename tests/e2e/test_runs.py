"""Whole runs of pytest on real VMs, from the header line to nothing left."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Run

_EXAMPLES = Path(__file__).parents[2] / "conftest_examples"


def test_markers_and_a_matrix_of_two_templates(
    a_run: Callable[..., Run], lima_template: str, template_copy: Path
) -> None:
    """The example boots a VM of each template and one for a marker with other cpus."""
    run = a_run(
        str(_EXAMPLES / "markers-and-matrix"), "-v",
        f"--lima-template={lima_template}", f"--lima-template={template_copy}",
    )  # fmt: skip
    status, output = run.finish()
    assert status == 0
    assert re.search(r"test_\w+\[other\] PASSED", output)
    assert len(set(re.findall(r"lima (pl-\w+): ready", output))) == 3
    run.assert_nothing_left()


def test_packages_of_a_monorepo_share_a_vm_which_is_stopped(a_run: Callable[..., Run]) -> None:
    run = a_run(str(_EXAMPLES / "monorepo"), "-v", "--lima-teardown=stop")
    status, output = run.finish()
    assert status == 0
    [name] = set(re.findall(r"lima (pl-\w+): ready", output))
    assert run.processes() == []
    assert run.instances() == [name]
    # The summary's own command removes it.
    [command] = re.findall(r"To remove: +(.*)", output)
    subprocess.run(["sh", "-c", command], check=True, timeout=60)
    run.assert_nothing_left(within=10)


def test_packages_one_after_another_share_a_vm(a_run: Callable[..., Run]) -> None:
    """The example's script: three runs of pytest, one boot."""
    run = a_run()
    run.argv = [str(_EXAMPLES / "monorepo" / "each"), "-v"]
    status, output = run.finish()
    assert status == 0
    [name] = re.findall(r"lima (pl-\w+): ready", output)
    assert re.findall(r"lima (pl-\w+): joined", output) == [name, name]
    assert output.count(" passed in ") == 3
    assert f"removed {name}" in output
    run.assert_nothing_left()


def test_a_failed_test_keeps_its_vm_and_shows_its_logs(
    a_run: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_it(lima):\n    lima.run('echo seen >/dev/console; false', user='root')\n"
    )
    run = a_run(str(tmp_path), f"--rootdir={tmp_path}", "--lima-keep=on-failure")
    status, output = run.finish(tmp_path)
    assert status == 1
    for section in ("console", "host agent", "cloud-init"):
        assert re.search(f"-+ lima {section} of pl-", output)
    [enter] = re.findall(r"To get in: +(.*)", output)
    said = subprocess.run(["sh", "-c", f"{enter} cat /proc/1/comm"], check=True, timeout=60,
                          capture_output=True, text=True).stdout  # fmt: skip
    assert said == "systemd\n"
    [remove] = re.findall(r"To remove: +(.*)", output)
    subprocess.run(["sh", "-c", remove], check=True, timeout=60)
    run.assert_nothing_left(within=10)


@pytest.mark.parametrize("phase", ["creating", "booting"])
def test_ctrl_c_during_a_boot_leaves_nothing(
    a_run: Callable[..., Run], tmp_path: Path, phase: str
) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(lima): pass\n")
    run = a_run(str(tmp_path), f"--rootdir={tmp_path}", "--lima-start=cold")
    process = run.start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(rf"lima pl-\w+: .*{phase}", line):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    run.assert_nothing_left()
