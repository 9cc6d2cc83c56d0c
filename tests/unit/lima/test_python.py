"""A Python of ours beside a project that has the names of other modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_lima.lima import libraries, python

BROKEN = "raise RuntimeError('the project was imported')\n"
NAMES = ("logging", "json", "pathlib", "subprocess", "psutil", "filelock", "platformdirs",
         "sitecustomize", "usercustomize", "startup", "typing_extensions")  # fmt: skip
NEEDS = ("psutil", "filelock", "platformdirs")
# What the started Python runs: it says where everything comes from.
SAYS = """
import sys

def main(args):
    import filelock, json, logging, pathlib, platformdirs, psutil, subprocess
    for module in list(sys.modules.values()):
        print(getattr(module, "__file__", None))
    print(*args)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with modules of many names, and a package of ours."""
    folder = tmp_path / "project"
    (folder / "pytest_lima").mkdir(parents=True)
    for name in (*NAMES, "pytest_lima/__init__"):
        (folder / f"{name}.py").write_text(BROKEN)
    return folder


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Our package with one module more, elsewhere: the one that is asked to run."""
    folder = tmp_path / "ours" / "pytest_lima"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "says.py").write_text(SAYS)
    monkeypatch.setattr(libraries, "__file__", str(folder / "lima/libraries.py"))
    return "pytest_lima.says"


def run(argv: list[str], env: dict[str, str], cwd: Path) -> list[str]:
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=30,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("way", ["sys.path", "PYTHONPATH", "the current directory", "variables"])
def test_nothing_is_imported_from_a_project(
    project: Path, says: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    variables = {
        "PYTHONPATH": {"PYTHONPATH": str(project)},
        "variables": {
            "PYTHONSTARTUP": str(project / "startup.py"), "PYTHONHOME": "/nowhere",
            "PYTHONUSERBASE": str(project), "PYTHONWARNINGS": "error", "PYTHONINSPECT": "1",
            "PYTHONPLATLIBDIR": "nowhere", "PYTHONVERBOSE": "1", "PYTHONNODEBUGRANGES": "1",
        },
    }.get(way, {})  # fmt: skip
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    argv = python.command(says, ["one", "two three"], NEEDS)
    env = python.environment({**os.environ, **variables})
    *files, last = run(argv, env, project if way == "the current directory" else Path("/"))
    assert last == "one two three"
    assert not [file for file in files if file.startswith(str(project))]
    for name in NEEDS:
        assert f"{libraries.folder_of(name)}/{name}/__init__.py" in files


def test_libraries_in_a_folder_of_their_own_are_found(
    tmp_path: Path, says: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by ``pip install --target`` and PYTHONPATH; what else lies there is nobody's."""
    target = tmp_path / "target"
    target.mkdir()
    for name in NEEDS:
        folder = libraries.folder_of(name)
        assert folder is not None
        for path in Path(folder).glob(f"{name}*"):
            (target / path.name).symlink_to(path)
    (target / "logging.py").write_text(BROKEN)
    others = [one for one in sys.path if "-packages" not in one]
    monkeypatch.setattr(sys, "path", [str(project), str(target), *others])
    found = {name: libraries.folder_of(name) for name in NEEDS}
    argv = python.command(says, [], NEEDS)
    monkeypatch.undo()
    assert found == dict.fromkeys(NEEDS, str(target))
    files = run(argv, python.environment(os.environ), Path("/"))
    assert f"{target}/psutil/__init__.py" in files


def test_a_python_of_another_home_is_told_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that finds its standard library by PYTHONHOME alone; not where that is for others."""
    assert python.environment({"PYTHONHOME": sys.base_prefix, "A": "b"}) == {
        "PYTHONHOME": sys.base_prefix, "A": "b"
    }  # fmt: skip
    assert python.environment({"PYTHONHOME": "/other", "PYTHONPATH": "x", "A": "b"}) == {"A": "b"}


def test_what_is_loaded_is_the_library(project: Path) -> None:
    program = f"""
import sys
from pytest_lima.lima import libraries
sys.path.insert(0, {str(project)!r})
libraries.load(["psutil", "yaml"])
import psutil, yaml
print(psutil.__file__, yaml.safe_load("[1]"), len(sys.meta_path))
"""
    (project / "yaml.py").write_text(BROKEN)
    for name in ("json", "logging", "pathlib", "subprocess"):
        (project / f"{name}.py").unlink()  # this very Python would break
    [line] = run([sys.executable, "-c", program], dict(os.environ), Path("/"))
    assert line.split()[0] == f"{libraries.folder_of('psutil')}/psutil/__init__.py"
    assert "[1]" in line
