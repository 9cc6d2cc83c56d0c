"""Warm start and clean state until Docker answers, against a cold start by hand.

Run it with ``scripts/engine run python benchmarks/warm.py [ROUNDS]``. Before the first round a
run of pytest keeps a VM. Each round starts one by hand (``limactl start`` and a loop around
``/_ping``), wakes one up by a run of pytest, and resets that, so all share the machine's mood.
It prints the seconds, and the ratios of the medians to the one by hand.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cold import DEADLINE, by_hand

TEST = """
import time
from pytest_lima.guest import sockets

def test_it(lima, lima_docker_host):
    print("READY AT", time.time())
    begun = time.time()
    lima.reset()
    sockets.ping("docker", lima.dir / "pl" / "docker.sock")
    print("RESET TOOK", time.time() - begun)
"""


def by_plugin(folder: Path, start: str) -> tuple[float, float]:
    """Seconds from starting pytest to the first line of its first test, and of a reset."""
    test = folder / "test_it.py"
    test.write_text(TEST)
    env = {**os.environ, "PYTEST_LIMA_HOME": str(folder / "ours"), "PYTEST_LIMA_START": start}
    argv = [sys.executable, "-m", "pytest", "-s", f"--rootdir={folder}", str(test)]
    begun = time.time()
    done = subprocess.run(
        argv, env=env, cwd=folder, check=True, capture_output=True, text=True, timeout=DEADLINE
    )

    def said(what: str) -> float:
        return float(done.stdout.split(what)[1].split()[0])

    return said("READY AT") - begun, said("RESET TOOK")


def main(rounds: int) -> None:
    """Take turns, print as it goes."""
    hand, warm, reset = [], [], []
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as name:
        folder = Path(name)
        print(f"kept after {by_plugin(folder, 'auto')[0]:6.1f} s", flush=True)
        for _ in range(rounds):
            hand.append(by_hand(folder))
            woken, cleaned = by_plugin(folder, "warm")
            warm.append(woken)
            reset.append(cleaned)
            print(f"by hand {hand[-1]:6.1f} s   pytest start to test {woken:6.1f} s   "
                  f"reset {cleaned:6.1f} s", flush=True)  # fmt: skip
    base = statistics.median(hand)
    for name, times in (("pytest start to test", warm), ("reset", reset)):
        print(f"{name}: median {statistics.median(times):.1f} s, from {min(times):.1f} to "
              f"{max(times):.1f}, ratio {statistics.median(times) / base:.3f}")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
