"""Files to and from a guest: ``put`` and ``get`` against ``limactl cp``.

Run it with ``scripts/engine run python benchmarks/files.py [ROUNDS]``. Both copy the same 32 MB
of random bytes and the same 1,000 small files, in turns, to and from the same guest. Every copy
goes where nothing is yet: limactl's rsync would otherwise compare and send nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from table import Row, show

from pytest_lima import Instance, lima_instance

SIZE = 32 * 1024 * 1024
COUNT = 1000
# Memory of the guest's: its emulated disk is no part of what is compared.
THERE = "/dev/shm"


class Copies:
    """Copies to a new name each, which is removed again."""

    def __init__(self, vm: Instance, folder: Path) -> None:
        self._vm = vm
        self._folder = folder
        self._count = 0
        self.file = folder / "file"
        self.file.write_bytes(os.urandom(SIZE))
        self.tree = folder / "tree"
        self.tree.mkdir()
        for number in range(COUNT):
            (self.tree / f"{number:04}.txt").write_bytes(os.urandom(1000))
        vm.put(self.file, f"{THERE}/original")

    def cp(self, *args: str) -> None:
        """``limactl cp``."""
        done = self._vm.limactl("cp", *args, timeout=300)
        if not done.ok:
            raise SystemExit(done.stderr)

    def seconds(self, call: Callable[[str, Path], object]) -> float:
        """How long a copy to a new place takes."""
        self._count += 1
        there, here = f"{THERE}/{self._count}", self._folder / str(self._count)
        begun = time.perf_counter()
        call(there, here)
        taken = time.perf_counter() - begun
        self._vm.run(["rm", "-rf", there])
        here.unlink(missing_ok=True)
        return taken

    def calls(self) -> dict[str, tuple[Callable[[str, Path], object], ...]]:
        """What is measured: ours and theirs."""
        vm, name = self._vm, self._vm.name
        return {
            "`put` of 32 MB": (
                lambda there, _: vm.put(self.file, there),
                lambda there, _: self.cp(str(self.file), f"{name}:{there}"),
            ),
            "`get` of 32 MB": (
                lambda _, here: vm.get(f"{THERE}/original", here),
                lambda _, here: self.cp(f"{name}:{THERE}/original", str(here)),
            ),
            "`put` of 1,000 files": (
                lambda there, _: vm.put(self.tree, there),
                lambda there, _: self.cp("-r", str(self.tree), f"{name}:{there}"),
            ),
        }


def rows(vm: Instance, rounds: int) -> list[Row]:
    """Measure each kind of copy."""
    with tempfile.TemporaryDirectory() as folder:
        copies = Copies(vm, Path(folder))
        measured = []
        for name, calls in copies.calls().items():
            taken = [[copies.seconds(call) for call in calls] for _ in range(rounds + 1)]
            # The first ones open connections.
            ours, theirs = zip(*taken[1:], strict=True)
            measured.append(Row(name, "`limactl cp`", "s", ours, theirs))
        return measured


if __name__ == "__main__":
    with lima_instance() as machine:
        show(rows(machine, int(sys.argv[1]) if len(sys.argv) > 1 else 5))
