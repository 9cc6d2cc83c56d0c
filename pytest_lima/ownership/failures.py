"""A start that fails in one process, told in another."""

from __future__ import annotations

import contextlib
from typing import Any

from pytest_lima import errors
from pytest_lima.errors import LimaError, ReadyTimeoutError
from pytest_lima.lima import identity
from pytest_lima.ownership.record import Record


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
    """An error as it is stored in a record."""
    return {
        "kind": type(error).__name__, "what": error.what, "ran": error.ran, "seen": error.seen,
        "remedy": error.remedy, "log": error.log,
    }  # fmt: skip


def waited_too_long(record: Record, seconds: float, phase: str) -> ReadyTimeoutError:
    """The error of a process that has waited for another's start."""
    pid = record.starter.pid
    return ReadyTimeoutError(
        f"{record.name} is not ready: process {pid} has been starting it for {seconds:.0f} s",
        seen=f"it is {phase or 'at its beginning'}; {' '.join(identity.command_line(pid))}",
        remedy=f"end or continue process {pid}, which may be suspended",
    )
