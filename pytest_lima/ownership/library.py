"""The engine without pytest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Unpack

from pytest_lima.instance import Instance
from pytest_lima.lima import engines
from pytest_lima.observer import Observer
from pytest_lima.ownership.pool import Pool
from pytest_lima.settings import Settings, resolve
from pytest_lima.spec import MachineArguments, machine_spec, require_known


@contextmanager
def lima_instance(
    *,
    name: str | None = None,
    engine: str = "none",
    settings: Settings | None = None,
    observer: Observer | None = None,
    **spec: Unpack[MachineArguments],
) -> Iterator[Instance]:
    """A ready VM without pytest.

    It is deleted at the end of the ``with`` block, unless ``keep`` or ``teardown`` of the settings
    say otherwise.

    Args:
        name: Becomes part of the instance's name.
        engine: ``docker``, ``containerd``, ``both`` or ``none``.
        settings: The options, by default those of the ``PYTEST_LIMA_*`` variables.
        observer: Gets the phases of the boot. By default they are logged.
        **spec: The marker's arguments: template, vmtype, cpus, memory, disk, provision, mounts,
            networks, set, param, arch, overrides. Relative paths start at the current directory.

    Raises:
        LimaError: The VM did not become ready.
        CleanupError: Something of the VM could not be deleted. If the block raised an exception,
            that is raised instead, with this error as a note.
    """
    require_known("lima_instance", spec, own=("name", "engine", "settings", "observer"))
    chosen = settings or resolve({}, os.environ, {})
    asked = replace(machine_spec(**spec), engines=engines.named(engine))
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
