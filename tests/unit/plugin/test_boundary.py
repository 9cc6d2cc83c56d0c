"""What goes wrong in a hook is told; what ends a test or a run isn't kept."""

from __future__ import annotations

import pytest

from pytest_lima.plugin import boundary


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("replaced")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left"), "left out: OSError: [Errno 28] No space left"),
        (RuntimeError("two\nlines"), "left out: RuntimeError: two lines"),
        (RecursionError(), "left out: RecursionError"),
        (MuteError(), "left out: MuteError: it can't say what"),
    ],
)
def test_it_is_one_line(error: Exception, line: str) -> None:
    lines: list[str] = []
    with boundary.told(lines.append, "left out"):
        raise error
    assert lines == [line]


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt, SystemExit, lambda: pytest.exit.Exception("the end")]
)
def test_an_end_is_an_end(end: type[BaseException]) -> None:
    with pytest.raises(BaseException) as caught, boundary.told(print, "left out"):
        raise end()
    assert isinstance(caught.value, (KeyboardInterrupt, SystemExit, pytest.exit.Exception))


@pytest.mark.parametrize("outcome", [pytest.skip, pytest.fail])
def test_an_outcome_is_one(outcome: object) -> None:
    kind = outcome.Exception  # type: ignore[attr-defined]
    with pytest.raises(kind), boundary.told(print, "left out"):
        raise kind("it is")
