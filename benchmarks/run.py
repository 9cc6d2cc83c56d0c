"""One command in the guest: ``Instance.run`` against ``ssh`` through a ControlMaster.

Run it with ``scripts/engine run python benchmarks/run.py [ROUNDS]``. Both run the same commands
in the same guest, in turns. It prints the medians and their ratio.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from pytest_lima import Instance, lima_instance

# A builtin, a program, a pipe, and what needs a login shell of its own.
COMMANDS = ("true", "/bin/true", "ls / | wc -l", "true $$")
TOGETHER = 5


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes, of several one after the other."""
    begun = time.perf_counter()
    for _ in range(TOGETHER):
        call()
    return (time.perf_counter() - begun) / TOGETHER


def main(rounds: int) -> None:
    """Boot a VM, measure, print."""
    with lima_instance() as vm:
        ssh = ["ssh", "-F", str(vm.ssh_config), "-o", f"ControlPath={vm.dir}/pl/cm"]
        host = f"lima-{vm.name}"
        # -f returns when the master listens: a command before that would log in by itself.
        subprocess.run([*ssh, "-MNf", host], check=True, stderr=subprocess.DEVNULL)
        try:
            results = {line: measure(vm, [*ssh, host], rounds, line) for line in COMMANDS}
            subprocess.run([*ssh, "-O", "check", host], check=True)
        finally:
            subprocess.run([*ssh, "-O", "exit", host], check=False)
        print(json.dumps(results))


def measure(vm: Instance, ssh: list[str], rounds: int, command: str) -> dict[str, object]:
    """Take turns."""
    ours, theirs = [], []
    for number in range(rounds + 1):
        one = seconds(lambda: vm.run(command))
        other = seconds(lambda: subprocess.run([*ssh, command], check=True, capture_output=True))
        if number:  # the first ones open connections
            ours.append(one)
            theirs.append(other)
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"{command:15} {a * 1000:5.1f} ms   ssh, ControlMaster {b * 1000:5.1f} ms   "
          f"ratio {a / b:.2f}", flush=True)  # fmt: skip
    return {"ours": ours, "ssh": theirs, "ratio": a / b}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
