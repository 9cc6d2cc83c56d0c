"""Files of this host that a lima.yaml names, by paths that start beside whoever wrote them.

limactl takes a relative one from its current directory, which is a test's by then. What it makes
absolute itself isn't here: ``base``, and ``file`` of provision and probes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_lima.values import located_in

_EACH = "[]"
_PLACES = (
    ("images", _EACH, "location"),
    ("images", _EACH, "kernel", "location"),
    ("images", _EACH, "initrd", "location"),
    ("firmware", "images", _EACH, "location"),
    ("caCerts", "files", _EACH),
    ("containerd", "archives", _EACH, "location"),
    ("mounts", _EACH, "location"),
)


def located(template: Any, folders: Iterable[Path | str]) -> Any:
    """A template, or a part of one, with relative paths in the first of the folders that has them.

    Where none has one, it is in the first. URLs stay, and so does what Lima expands: ``~`` and
    ``{{.Home}}``.
    """
    places = [*folders]
    for steps in _PLACES:
        template = _located(template, steps, places)
    return template


def _located(value: Any, steps: tuple[str, ...], folders: list[Path | str]) -> Any:
    if not steps:
        return _path(value, folders)
    step, *rest = steps
    if step == _EACH:
        each = isinstance(value, list | tuple)
        return [_located(one, tuple(rest), folders) for one in value] if each else value
    if isinstance(value, Mapping) and value.get(step) is not None:
        return {**value, step: _located(value[step], tuple(rest), folders)}
    return value


def _path(value: Any, folders: list[Path | str]) -> Any:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or text.startswith("~") or "{{" in text:
        return text
    # As a template may be, it may be a URL.
    return located_in("template", text, folders)
