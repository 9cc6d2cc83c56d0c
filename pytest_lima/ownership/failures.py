"""A start that fails in one process, told in another."""

from __future__ import annotations

import contextlib
from typing import Any

from pytest_lima import errors
from pytest_lima.errors import LimaError, ReadyTimeoutError, StartError
from pytest_lima.lima import identity
from pytest_lima.lima.identity import Identity
from pytest_lima.ownership.record import Record


class RemovedError(StartError):
    """Another process has taken an instance away while this one made it."""


def who(record: Record) -> str:
    """The starter, for people."""
    return record.label or f"process {record.starter.pid}"


def failure_of(record: Record) -> LimaError:
    """The error that another process had with this instance."""
    failure = dict(record.failure or {})
    # Some are made of other things than these fields, such as the result of a command.
    for kind in (getattr(errors, str(failure.pop("kind", "")), LimaError), LimaError):
        with contextlib.suppress(TypeError):
            error = kind(**failure)
            if isinstance(error, LimaError):
                return error
    return LimaError(f"{record.name} could not be started by another worker")


def to_plain(error: LimaError) -> dict[str, Any]:
    """An error as it is stored in a record; one of a kind of ours alone as the public one."""
    public = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {
        "kind": public.__name__, "what": error.what, "ran": error.ran, "seen": error.seen,
        "remedy": error.remedy, "log": error.log,
    }  # fmt: skip


def removed(name: str, record: Record | None) -> RemovedError:
    """The error of a process that has lost what it was making.

    Args:
        name: Of the instance.
        record: What the ledger has of it by now.
    """
    seen = "its record is gone"
    if record is not None:
        pid = record.starter.pid
        seen = f"process {pid} has it now, to be {record.state}: " + (
            " ".join(identity.command_line(pid)) or "which is gone"
        )
    return RemovedError(
        f"{name} was removed while it was being started",
        seen=seen,
        remedy="run the tests again, with no `pytest-lima prune --all` beside them",
    )


def waited_too_long(record: Record, seconds: float, phase: str) -> ReadyTimeoutError:
    """The error of a process that has waited for another's start."""
    pid = record.starter.pid
    return ReadyTimeoutError(
        f"{record.name} is not ready: process {pid} has been starting it for {seconds:.0f} s",
        seen=f"it is {phase or 'at its beginning'}; {' '.join(identity.command_line(pid))}",
        remedy=f"end or continue process {pid}, which may be suspended",
    )


def refuse_others(record: Record, process: Identity, what: str) -> None:
    """Raise unless ``process`` is the only one that has to do with an instance.

    Raises:
        LimaError: Others use it, or are at work on it; says which.
    """
    others = {one for one in record.holders if one != process}
    if record.is_taken_from(process):
        others.add(record.starter)
    if others:
        raise LimaError(
            f"{record.name} can't be {what}: {len(others)} other processes use it",
            seen="; ".join(f"process {pid}: {' '.join(identity.command_line(pid))}"
                           for pid in sorted(one.pid for one in others)),
            remedy="ask for a VM of the test's own, with lima_fresh or fresh=True",
        )  # fmt: skip
