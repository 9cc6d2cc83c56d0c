"""One command in the guest: ``Instance.run`` against ``ssh`` through a ControlMaster.

Run it with ``scripts/engine run python benchmarks/run.py [ROUNDS]``. Both run ``true`` in the
same guest, in turns. It prints the medians and their ratio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from pytest_lima import Instance, lima_instance


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main(rounds: int) -> None:
    """Boot a VM, measure, print."""
    with lima_instance() as vm:
        control = ["-o", "ControlMaster=auto", "-o", f"ControlPath={vm.dir}/pl/cm"]
        ssh = ["ssh", "-F", str(vm.ssh_config), *control, f"lima-{vm.name}"]
        master = subprocess.Popen(["ssh", "-N", "-M", *ssh[1:]], stderr=subprocess.DEVNULL)
        try:
            measure(vm, ssh, rounds)
        finally:
            master.terminate()
            master.wait()


def measure(vm: Instance, ssh: list[str], rounds: int) -> None:
    """Take turns."""
    ours, theirs = [], []
    for number in range(rounds + 3):
        one = seconds(lambda: vm.run("true"))
        other = seconds(lambda: subprocess.run([*ssh, "true"], check=True, capture_output=True))
        if number >= 3:  # the first ones open connections
            ours.append(one)
            theirs.append(other)
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"run('true') {a * 1000:.0f} ms   ssh through a ControlMaster {b * 1000:.0f} ms")
    print(f"ratio {a / b:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
