"""Every measurement of this folder in one go: a table, JSON and a plot.

Run it with ``scripts/engine run python benchmarks/all.py [ROUNDS] [FOLDER]`` on a machine that
does nothing else. It writes ``table.md``, ``results.json`` and ``plot.svg`` into the folder.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
import tempfile
from pathlib import Path

import files
import memory
import run
import starts
import unused
from table import markdown, plot, show, write_json

from pytest_lima import lima_instance


def main(rounds: int, folder: Path) -> None:
    """Measure, print, write."""
    begun = os.getloadavg()
    found = starts.rows(rounds)
    show(found)
    with lima_instance(engine="docker") as vm:
        inside = [*run.rows(vm, 2 * rounds, run.COMMANDS[:2]), *files.rows(vm, rounds)]
    show(inside)
    used = [*memory.rows(rounds), *unused.rows(10 * rounds)]
    show(used)
    about = {
        "day": dt.datetime.now(dt.UTC).date().isoformat(), "processors": os.cpu_count(),
        "machine": platform.machine(), "rounds": rounds, "load before": begun,
        "load after": os.getloadavg(),
    }  # fmt: skip
    everything = [*found, *inside, *used]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(everything))
    write_json(everything, folder / "results.json", about)
    plot([*found, *inside], folder / "plot.svg")
    print(f"\n{markdown(everything)}\nin {folder}")


if __name__ == "__main__":
    wanted = sys.argv[1:]
    main(
        int(wanted[0]) if wanted else 3,
        Path(wanted[1]) if len(wanted) > 1 else Path(tempfile.mkdtemp(prefix="benchmarks")),
    )
