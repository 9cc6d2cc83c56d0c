"""Install the oldest release of each dependency that pyproject.toml allows."""

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def main() -> int:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = pyproject["project"]["dependencies"] + [
        item for group in ("test", "xdist") for item in pyproject["dependency-groups"][group]
    ]
    pinned = [requirement.replace(">=", "==") for requirement in wanted]
    return subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *pinned]).returncode


if __name__ == "__main__":
    sys.exit(main())
