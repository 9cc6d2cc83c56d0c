"""The engine without pytest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.instance import Instance
from pytest_lima.lima import engines
from pytest_lima.observer import Observer
from pytest_lima.ownership.pool import Pool
from pytest_lima.settings import Settings, resolve
from pytest_lima.spec import machine_spec


@contextmanager
def lima_instance(
    *,
    name: str | None = None,
    engine: str = "none",
    settings: Settings | None = None,
    observer: Observer | None = None,
    **spec: Any,
) -> Iterator[Instance]:
    """A ready VM without pytest, deleted at the end of the ``with`` block.

    Unless ``keep`` or ``teardown`` of the settings say otherwise.

    Args:
        name: A part of the instance's name.
        engine: ``docker``, ``containerd``, ``both`` or ``none``.
        settings: By default from the ``PYTEST_LIMA_*`` variables.
        observer: Gets the phases of the boot; by default they are logged.
        **spec: As for the marker: template, vmtype, cpus, memory, disk, provision, mounts,
            networks, set, param, arch, overrides. Relative paths start at the current directory.

    Raises:
        LimaError: Whatever kept it from being ready.
        CleanupError: Something of it is left. An exception of the block goes first, and has this
            as a note.
    """
    chosen = settings or resolve({}, os.environ, {})
    if engine not in engines.ENGINES:
        raise TemplateError(
            f"engine={engine!r} is not accepted; give one of " + ", ".join(engines.ENGINES)
        )
    asked = replace(machine_spec(**spec), engines=engines.ENGINES[engine])
    default = chosen.templates[0]
    pool = Pool(chosen, os.environ, observer or Observer())
    try:
        yield pool.create(asked.filled(chosen, default, {}).located(""), name)
    except BaseException as error:
        _note(error, _close(pool))
        raise
    if problems := _close(pool):
        first, *others = problems
        _note(first, others)
        raise first


def _close(pool: Pool) -> list[Exception]:
    """End all of it; what could not be ended."""
    try:
        pool.close()
    except ExceptionGroup as group:
        return list(group.exceptions)
    return []


def _note(error: BaseException, others: list[Exception]) -> None:
    for other in others:
        error.add_note(str(other))
