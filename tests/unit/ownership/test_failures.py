"""Errors that cross from one process to another by way of the ledger."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from pytest_lima import errors
from pytest_lima.errors import (
    CommandError,
    CommandTimeoutError,
    LimaError,
    ProvisionError,
    TemplateError,
)
from pytest_lima.guest.commands import CommandResult
from pytest_lima.lima import identity
from pytest_lima.lima.identity import this_process
from pytest_lima.ownership import failures
from pytest_lima.ownership.record import Record

MINE = this_process()
RECORD = Record("pl-1", "/h", "limactl", "key", "run", MINE, MINE, label="gw3")


@pytest.mark.parametrize("kind", [ProvisionError, TemplateError, LimaError])
def test_an_error_comes_out_as_it_went_in(kind: type[LimaError]) -> None:
    error = kind("it failed", ran="a command", seen="a reason", remedy="mend it", log="/a/log")
    plain = json.loads(json.dumps(failures.to_plain(error)))
    told = failures.failure_of(replace(RECORD, failure=plain))
    assert type(told) is kind
    assert str(told) == str(error)


def test_one_that_is_made_of_something_else_keeps_what_it_says() -> None:
    """No other process can have the result of the command."""
    failed = CommandError(CommandResult("id -u", 3, b"", b"no such user", 0.5))
    late = CommandTimeoutError("sleep 9", 5.0, stderr="still asleep", killed=True)
    for error in (failed, late):
        told = failures.failure_of(replace(RECORD, failure=failures.to_plain(error)))
        assert str(told) == str(error)


@pytest.mark.parametrize(
    "failure",
    [
        None,
        {},
        {"kind": "ProvisionError"},
        {"kind": "NoSuchError", "what": "x"},
        {"kind": "annotations", "what": "x"},
        {"kind": "CommandError", "what": "x", "ran": None},
        {"kind": "StartError", "what": "x", "more": 1},
    ],
)
def test_whatever_is_stored_becomes_an_error_of_ours(failure: dict[str, object] | None) -> None:
    told = failures.failure_of(replace(RECORD, failure=failure))
    assert isinstance(told, errors.LimaError)
    assert str(told)


def test_the_starter_has_a_name() -> None:
    assert failures.who(RECORD) == "gw3"
    assert failures.who(replace(RECORD, label="")) == f"process {os.getpid()}"


def test_who_waited_too_long_is_told_for_whom() -> None:
    text = str(failures.waited_too_long(RECORD, 90.4, "booting"))
    assert f"process {os.getpid()} has been starting it for 90 s" in text
    assert "it is booting" in text
    assert " ".join(identity.command_line(os.getpid())) in text
    assert len(text.splitlines()) <= 5
