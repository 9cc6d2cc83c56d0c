"""How long until Docker answers: cold, woken up, joined, reset, against a cold start by hand.

Run it with ``scripts/engine run python benchmarks/starts.py [ROUNDS]``. Each round starts a VM
by hand (``limactl start`` and a loop around ``/_ping``), then by runs of pytest in each way, all
from the same template, so that all share the machine's mood.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from cold import DEADLINE, by_hand
from table import Row, show

TEST = """
import os, time
import pytest
from pytest_lima.guest import answers

@pytest.mark.parametrize("number", range(int(os.environ["TESTS"])))
def test_it(lima, lima_docker_host, number, pytestconfig):
    path = pytestconfig.rootpath / f"ready-{number}"
    path.write_text(str(time.time()))
    while len(list(path.parent.glob("ready-*"))) < int(os.environ["TESTS"]):
        time.sleep(0.1)  # so that each worker takes one

def test_reset(lima, lima_docker_host, pytestconfig):
    if "RESET" in os.environ:
        begun = time.time()
        lima.reset()
        answers.ping("docker", lima.dir / "pl" / "docker.sock")
        (pytestconfig.rootpath / "reset").write_text(str(time.time() - begun))
"""
BASELINE = "`limactl start` and `/_ping`"


class Runs:
    """Runs of pytest in one LIMA_HOME and with one ledger."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = folder / "ours"
        (folder / "suite").mkdir()
        (folder / "suite" / "test_it.py").write_text(TEST)

    def ready(self, *args: str, tests: int = 1, **env: str) -> float:
        """Seconds from starting pytest until the last of its VMs is in its test's hands."""
        suite = self._folder / "suite"
        for old in (*suite.glob("ready-*"), *suite.glob("reset")):
            old.unlink()
        environ = {
            **os.environ, "PYTEST_LIMA_HOME": str(self._home), "TESTS": str(tests),
            "XDG_STATE_HOME": str(self._folder / "state"), **env,
        }  # fmt: skip
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
        begun = time.time()
        subprocess.run(
            [*argv, f"--rootdir={suite}", str(suite)],
            env=environ, cwd=suite, check=True, capture_output=True, timeout=DEADLINE,
        )  # fmt: skip
        return max(float(path.read_text()) for path in suite.glob("ready-*")) - begun

    def reset(self) -> float:
        """Seconds that the last run's reset took."""
        return float((self._folder / "suite" / "reset").read_text())

    def forget(self) -> None:
        """Nothing to wake up from."""
        shutil.rmtree(self._home / "_golden", ignore_errors=True)

    def prune(self) -> None:
        """End what is kept for reuse."""
        environ = {**os.environ, "PYTEST_LIMA_HOME": str(self._home),
                   "XDG_STATE_HOME": str(self._folder / "state")}  # fmt: skip
        argv = [Path(sys.executable).with_name("pytest-lima"), "prune", "--all", "--yes"]
        subprocess.run(argv, env=environ, check=True, capture_output=True, timeout=DEADLINE)


def rows(rounds: int) -> list[Row]:
    """Measure everything in turns."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as name:
        runs = Runs(Path(name))
        for _ in range(rounds):
            found["hand"].append(by_hand(Path(name)))
            runs.forget()
            found["cold"].append(runs.ready())
            found["warm"].append(runs.ready("--lima-start=warm", RESET="1"))
            found["reset"].append(runs.reset())
            found["two"].append(
                runs.ready("-n2", "--lima-share=worker", "--lima-start=warm", tests=2)
            )
            try:
                runs.ready("--lima-reuse")
                found["attach"].append(runs.ready("--lima-reuse"))
            finally:
                runs.prune()
            print("  ".join(f"{key} {times[-1]:.1f} s" for key, times in found.items()), flush=True)
    hand = found["hand"]
    return [
        Row("first test, VM kept by an earlier run", BASELINE, "s", found["warm"], hand),
        Row("first test, nothing kept, keeping included", BASELINE, "s", found["cold"], hand),
        Row(
            "two workers, a VM each", "twice the same", "s", found["two"],
            [2 * seconds for seconds in hand],
        ),
        Row("first test, `--lima-reuse`", BASELINE, "s", found["attach"], hand),
        Row("clean state for a test", BASELINE, "s", found["reset"], hand),
    ]  # fmt: skip


if __name__ == "__main__":
    show(rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
