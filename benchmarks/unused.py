"""What the plugin costs a run that has no Lima test: pytest with it against ``-p no:lima``.

Run it with ``python benchmarks/unused.py [ROUNDS]``. It prints the medians of a run of one
empty test, in turns, and their difference.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(rounds: int) -> None:
    """Measure in turns, print."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_it.py").write_text("def test_it(): pass\n")
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder]
        for number in range(rounds + 2):
            for name, extra in (("with", []), ("without", ["-p", "no:lima"])):
                begun = time.perf_counter()
                subprocess.run([*argv, *extra], check=True, capture_output=True, cwd=folder)
                if number >= 2:  # the first ones write byte code
                    times[name].append(time.perf_counter() - begun)
    ours, plain = (statistics.median(times[name]) for name in ("with", "without"))
    print(f"with {ours * 1000:.1f} ms   without {plain * 1000:.1f} ms")
    print(f"difference {(ours - plain) * 1000:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
