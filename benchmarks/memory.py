"""Memory of a pytest process that has used a VM, against one without the plugin.

Run it with ``scripts/engine run python benchmarks/memory.py [ROUNDS]``. The VM is woken up or
booted, runs commands and gets a file, so all of the plugin has been loaded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from cold import DEADLINE
from table import Row, show

USED = """
def test_it(lima, lima_docker_host):
    lima.run("true")
    lima.write_text("it", "x")
"""
PLAIN = "def test_it(): pass\n"
PEAK = """
def pytest_unconfigure(config):
    # Not getrusage's, which begins with what the parent had when it forked.
    with open("/proc/self/status") as status:
        [peak] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    (config.rootpath / "peak").write_text(peak)
"""


def rows(rounds: int) -> list[Row]:
    """Measure in turns."""
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(_mebibytes(PLAIN, "-p", "no:lima"))
        ours.append(_mebibytes(USED))
    return [Row("memory of the pytest process", "plain pytest", "MiB", ours, plain)]


def _mebibytes(program: str, *args: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_it.py").write_text(program)
        (folder / "conftest.py").write_text(PEAK)
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
        subprocess.run(
            [*argv, f"--rootdir={folder}", str(folder)], cwd=folder,
            check=True, capture_output=True, timeout=DEADLINE,
        )  # fmt: skip
        return float((folder / "peak").read_text()) / 1024  # in KiB


if __name__ == "__main__":
    show(rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
