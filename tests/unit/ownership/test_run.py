"""A run of one process."""

from __future__ import annotations

from pytest_lima.lima.identity import this_process
from pytest_lima.ownership.run import Run


def test_alone_is_its_own_owner_and_like_no_other() -> None:
    one, two = Run.alone(), Run.alone()
    assert one.owner == this_process()
    assert one.id != two.id
    assert not (one.many or one.final)
