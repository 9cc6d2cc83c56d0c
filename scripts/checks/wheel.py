"""Check what is published: metadata, contents, and that it works when installed alone."""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path


def main(dist: Path) -> None:
    files = sorted(map(str, dist.iterdir()))
    wheels = [name for name in files if name.endswith(".whl")]
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    run(sys.executable, "-m", "check_wheel_contents", *wheels)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        run(python, "-m", "pip", "install", "--quiet", *wheels)
        test = Path(folder, "test_it.py")
        test.write_text("def test_it(lima_settings): assert lima_settings")
        run(python, "-m", "pytest", "-q", "--strict-markers", f"--rootdir={folder}", str(test))
        installed = next(Path(folder).glob("lib/*/site-packages/pytest_lima"))
        if not (installed / "py.typed").exists():
            sys.exit("the wheel has no py.typed")
        run(python, "-c", "import pytest_lima; [getattr(pytest_lima, n) for n in dir(pytest_lima)]")


def run(*argv: str) -> None:
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
