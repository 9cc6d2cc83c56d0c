"""Where the libraries are that we import, whatever else has their names.

A project's own modules may come before them: pytest puts the folder of a test file in front of
``sys.path``, and a ``tests/psutil.py`` is then what ``import psutil`` finds. Where a library was
installed, its metadata says; the standard library's folder, Python does. There we look first, and
only while we import: to the project its names are its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from pytest_lima.errors import LimaError

# What we import, and what that imports, with the distribution that has it.
_DISTRIBUTIONS = {
    name: name
    for name in ("bcrypt", "cffi", "cryptography", "filelock", "h2", "hpack", "hyperframe",
                 "invoke", "paramiko", "platformdirs", "psutil", "pycparser", "tenacity")
} | {"_cffi_backend": "cffi", "_yaml": "PyYAML", "nacl": "PyNaCl", "qemu": "qemu.qmp",
     "yaml": "PyYAML"}  # fmt: skip

_loaded: set[str] = set()


def folder_of(name: str) -> str | None:
    """The folder, or archive, out of which a package of this name is to be imported."""
    return _installed(name) or _imported(name) or _found(name)


@contextmanager
def ours_first() -> Iterator[None]:
    """Find libraries and Python's own modules where they are, in what this thread imports.

    Raises:
        LimaError: The project has imported a module by such a name before, so that an import
            inside fails.
    """
    finder = _OursFirst()
    sys.meta_path.insert(0, finder)
    try:
        yield
    except Exception as error:
        _refuse_foreign([*_DISTRIBUTIONS, *sys.stdlib_module_names], error)
        raise
    finally:
        sys.meta_path.remove(finder)


def load(names: Iterable[str]) -> None:
    """Import modules of libraries, or Python's, so that later imports find them.

    Raises:
        LimaError: The project has imported a module by such a name before.
        ImportError: One isn't installed.
    """
    for name in names:
        if name not in _loaded:
            _refuse_foreign([name.partition(".")[0]])
            with ours_first():
                importlib.import_module(name)
            _loaded.add(name)


def _refuse_foreign(names: Iterable[str], error: Exception | None = None) -> None:
    """Raise if a module of the project's has one of these names."""
    for name in names:
        if _is_foreign(name):
            problem = f"; {type(error).__name__}: {error}" if error else ""
            raise LimaError(
                f"{sys.modules[name].__file__} is in the way of {_described(name)}",
                seen=f"it was imported as {name} before{problem}",
                remedy="give it another name; a package of tests keeps its own with an "
                "__init__.py in the folder above it",
            ) from error


class _OursFirst:
    """Finds what we import for one thread, by its name, where it was installed."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, _: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As ``importlib.abc.MetaPathFinder`` has it."""
        folders = _folders(name) if threading.get_ident() == self._thread else []
        return PathFinder.find_spec(name, folders, target) if folders else None


def _folders(name: str) -> list[str]:
    """Where a module is to be found; none for those that it isn't for us to find."""
    if name in _DISTRIBUTIONS:
        folder = folder_of(name)
        return [folder] if folder else []
    return _standard() if name in sys.stdlib_module_names else []


@cache
def _standard() -> list[str]:
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"),
               sysconfig.get_config_var("DESTSHARED")]  # fmt: skip
    return [str(Path(folder).absolute()) for folder in dict.fromkeys(folders) if folder]


def _is_foreign(name: str) -> bool:
    """Whether another module goes by this name."""
    file = getattr(sys.modules.get(name), "__file__", None)
    folders = _folders(name)
    # None at all of Python's own are in a folder where it is an archive.
    if file is None or not folders or PathFinder.find_spec(name, folders) is None:
        return False
    path = Path(file).absolute()
    return not any(
        path.is_relative_to(folder) or path.resolve().is_relative_to(Path(folder).resolve())
        for folder in folders
    )


def _described(name: str) -> str:
    if name in _DISTRIBUTIONS:
        return f"the library {_DISTRIBUTIONS[name]}, which a VM takes"
    return f"Python's own {name}, which a VM takes"


def _installed(name: str) -> str | None:
    from importlib import metadata  # on use: it takes 20 ms, where nothing has loaded it

    try:
        distribution = metadata.distribution(_DISTRIBUTIONS.get(name, name))
        folder = str(Path(str(distribution.locate_file(""))).absolute())
    except metadata.PackageNotFoundError:
        return None
    # Not so for an editable one.
    return folder if PathFinder.find_spec(name, [folder]) else None


def _imported(name: str) -> str | None:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return _folder(spec) if spec is not None else None


def _found(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return _folder(spec) if spec is not None else None


def _folder(spec: ModuleSpec) -> str | None:
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return str(Path(places[0]).absolute().parent) if places[0] else None
