"""One command in the guest: ``Instance.run`` against ``ssh`` through a ControlMaster.

Run it with ``scripts/engine run python benchmarks/run.py [ROUNDS]``. Both run the same commands
in the same guest, in turns.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from table import Row, show

from pytest_lima import Instance, lima_instance

# A builtin, a program, a pipe, and what needs a login shell of its own.
COMMANDS = ("true", "/bin/true", "ls / | wc -l", "true $$")
TOGETHER = 5


def rows(vm: Instance, rounds: int, commands: tuple[str, ...] = COMMANDS) -> list[Row]:
    """Measure each command."""
    ssh = ["ssh", "-F", str(vm.ssh_config), "-o", f"ControlPath={vm.dir}/pl/cm"]
    host = f"lima-{vm.name}"
    # -f returns when the master listens: a command before that would log in by itself.
    subprocess.run([*ssh, "-MNf", host], check=True, stderr=subprocess.DEVNULL)
    try:
        measured = [_measured(vm, [*ssh, host], rounds, command) for command in commands]
        subprocess.run([*ssh, "-O", "check", host], check=True, stderr=subprocess.DEVNULL)
        return measured
    finally:
        subprocess.run([*ssh, "-O", "exit", host], check=False, stderr=subprocess.DEVNULL)


def _measured(vm: Instance, ssh: list[str], rounds: int, command: str) -> Row:
    ours, theirs = [], []
    for number in range(rounds + 1):
        one = _milliseconds(lambda: vm.run(command))
        other = _milliseconds(
            lambda: subprocess.run([*ssh, command], check=True, capture_output=True)
        )
        if number:  # the first ones open connections
            ours.append(one)
            theirs.append(other)
    return Row(f"`run({command!r})`", "`ssh` through a ControlMaster", "ms", ours, theirs)


def _milliseconds(call: Callable[[], object]) -> float:
    """How long one call takes, of several one after the other."""
    begun = time.perf_counter()
    for _ in range(TOGETHER):
        call()
    return (time.perf_counter() - begun) / TOGETHER * 1000


if __name__ == "__main__":
    with lima_instance() as machine:
        show(rows(machine, int(sys.argv[1]) if len(sys.argv) > 1 else 8))
