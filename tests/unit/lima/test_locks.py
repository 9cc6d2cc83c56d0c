"""Who holds a lock, noted for people."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_lima.lima import locks


def test_the_holder_is_named_with_its_command_line(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    assert locks.holder_of(lock) is None
    locks.note_holder(lock)
    assert str(locks.holder_of(lock)).startswith(f"process {os.getpid()} for 0 s: ")
    assert "pytest" in str(locks.holder_of(lock))
    assert [path.name for path in tmp_path.iterdir()] == ["a.holder"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"process": {}, "since": 1}', "17 1000"])
def test_a_note_that_says_something_else_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.holder").write_text(text)
    assert locks.holder_of(tmp_path / "a.lock") is None


def test_where_nothing_can_be_written_none_is_left(tmp_path: Path) -> None:
    locks.note_holder(tmp_path / "missing" / "a.lock")
