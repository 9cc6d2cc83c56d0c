"""A Python beside this one, for modules of ours, which imports nothing of the user's.

Neither ``PYTHONPATH`` nor the current directory, ``sitecustomize`` nor ``.pth`` files have a say in
it: a project may well have a ``logging.py``. Its standard library is its own; our package and its
libraries come each out of the one folder that it has here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_lima.lima import libraries

# What a library itself imports, beyond the standard library, may lie beside it, so last of all.
_PROGRAM = """\
import sys
from importlib.machinery import PathFinder
class Pinned:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [PINNED[name]], target) if name in PINNED else None
sys.meta_path.insert(0, Pinned)
sys.path += BESIDE
from importlib import import_module
import_module(sys.argv[1]).main(sys.argv[2:])
"""


def command(module: str, args: Sequence[str], needs: Sequence[str]) -> list[str]:
    """The command line of a Python that calls ``main(args)`` of a module of ours.

    Args:
        module: Its name.
        args: What it gets.
        needs: The libraries that it imports.
    """
    beside = {name: folder for name in needs if (folder := libraries.folder_of(name))}
    pinned = {"pytest_lima": str(Path(libraries.__file__).parents[2]), **beside}
    program = f"PINNED = {pinned!r}\nBESIDE = {sorted(set(beside.values()))!r}\n{_PROGRAM}"
    return [sys.executable, "-P", "-S", *_flags(), "-c", program, module, *args]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What is in ``environ`` without what is for other Pythons."""
    kept = {key: value for key, value in environ.items() if not key.startswith("PYTHON")}
    home = environ.get("PYTHONHOME", "")
    if home.partition(":")[0] == sys.base_prefix and not sys.flags.ignore_environment:
        kept["PYTHONHOME"] = home  # this one may find its standard library by it alone
    return kept


def _flags() -> list[str]:
    """This Python's own options that have to do with files."""
    flags = ["-B"] if sys.dont_write_bytecode else []
    flags += ["-X", "utf8"] if sys.flags.utf8_mode else []
    return flags + ([f"-Xpycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else [])
