"""Warm starts and resets by the dozen; too long for CI, so run by hand.

Run it with ``scripts/engine run pytest -s tests/soak``; PYTEST_LIMA_SOAK is the number of rounds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_lima import Instance, lima_instance
from pytest_lima.guest import answers
from pytest_lima.observer import Observer

ROUNDS = int(os.environ.get("PYTEST_LIMA_SOAK", "50"))
# One line each: host name, machine-id, a random number, the clock, failed units, kernel trouble,
# Lima's instance id, whether something of an earlier round is left.
ASK = r"""hostname; cat /etc/machine-id /proc/sys/kernel/random/uuid; date +%s.%N
systemctl --failed --no-legend | wc -l
sudo dmesg | grep -cE 'BUG|Call Trace|hung_task|I/O error|EXT4-fs error'
cat /run/lima-boot-done; ls ~/left /dev/shm/left 2>/dev/null | wc -l"""


class Warnings(Observer):
    """Any is one too many: a cold start instead of a warm one, for one."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def warn(self, message: str) -> None:
        if "does not work here" not in message:  # the accelerator
            self.told.append(message)


class Seen:
    """What must differ from round to round."""

    def __init__(self) -> None:
        self.facts: set[str] = set()
        self.machines: dict[str, str] = {}

    def check(self, vm: Instance) -> None:
        before = time.time()
        said = vm.run(ASK).stdout.split()
        after = time.time()
        host, machine, uuid, clock, failed, trouble, iid, left = said
        assert host == f"lima-{vm.name}"
        assert before - 1 < float(clock) < after + 1
        assert (failed, trouble, left) == ("0", "0", "0")
        assert iid.encode() in (vm.dir / "cidata.iso").read_bytes()
        # A reset leads back to the same machine, with other random numbers.
        assert uuid not in self.facts
        assert self.machines.setdefault(machine, vm.name) == vm.name
        self.facts.add(uuid)
        answers.ping("docker", Path(vm.docker_host.removeprefix("unix://")))
        assert vm.run("docker version -f '{{.Server.Version}}'").stdout.strip()


@pytest.mark.timeout(3600)
def test_wake_ups() -> None:
    seen, observer = Seen(), Warnings()
    for number in range(ROUNDS + 1):  # the first may be cold
        begun = time.monotonic()
        with lima_instance(engine="docker", observer=observer) as vm:
            ready = time.monotonic() - begun
            seen.check(vm)
            vm.write_text("left", "x")
        print(f"wake-up {number}: {ready:.1f} s", flush=True)
    assert observer.told == []


@pytest.mark.timeout(3600)
def test_resets() -> None:
    seen, observer = Seen(), Warnings()
    with lima_instance(engine="docker", observer=observer) as vm:
        for number in range(ROUNDS):
            seen.check(vm)
            vm.run("touch ~/left /dev/shm/left; sync")
            begun = time.monotonic()
            vm.reset()
            print(f"reset {number}: {time.monotonic() - begun:.1f} s", flush=True)
        seen.check(vm)
    assert observer.told == []
