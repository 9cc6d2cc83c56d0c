"""What the plugin costs a run that has no Lima test: pytest with it against ``-p no:lima``.

Run it with ``python benchmarks/unused.py [ROUNDS]``: runs of one empty test, in turns.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import Row, show


def rows(rounds: int) -> list[Row]:
    """Measure in turns."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_it.py").write_text("def test_it(): pass\n")
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder]
        for number in range(rounds + 2):
            for name, extra in (("with", []), ("without", ["-p", "no:lima"])):
                begun = time.perf_counter()
                subprocess.run([*argv, *extra], check=True, capture_output=True, cwd=folder)
                if number >= 2:  # the first ones write byte code
                    times[name].append((time.perf_counter() - begun) * 1000)
    return [Row("pytest without a Lima test", "`-p no:lima`", "ms", *times.values())]


if __name__ == "__main__":
    show(rows(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
