"""Where the libraries are that we import, whatever else has their names.

A project's own modules may come before them: pytest puts the folder of a test file in front of
``sys.path``, and a ``tests/psutil.py`` is then what ``import psutil`` finds. Where a library was
installed, its metadata says.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_DISTRIBUTIONS = {"yaml": "PyYAML"}


def folder_of(name: str) -> str | None:
    """The folder, or archive, out of which a package of this name is to be imported."""
    return _installed(name) or _imported(name) or _found(name)


def load(names: Iterable[str]) -> None:
    """Import libraries from where they were installed, so that later imports find them."""
    for name in names:
        if name not in sys.modules:
            finder = Pinned({name: folder_of(name)})
            sys.meta_path.insert(0, finder)
            try:
                importlib.import_module(name)
            finally:
                sys.meta_path.remove(finder)


class Pinned:
    """Finds each of some packages in one folder alone."""

    def __init__(self, folders: Mapping[str, str | None]) -> None:
        self._folders = folders

    def find_spec(
        self, name: str, _: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As ``importlib.abc.MetaPathFinder`` has it."""
        folder = self._folders.get(name)
        return PathFinder.find_spec(name, [folder], target) if folder else None


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
