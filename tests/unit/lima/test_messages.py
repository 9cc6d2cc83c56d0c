"""Log lines of limactl."""

from __future__ import annotations

import pytest

from pytest_lima.lima import messages


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ("", ""),
        ("\n \n", ""),
        ("plain\nlast line\n", "last line"),
        ('{"level":"info","msg":"fine"}\n', "fine"),
        ('{"level":"error","msg":"one"}\n{"level":"info","msg":"-"}\n{"level":"fatal","msg":"two"}',
         "one\ntwo"),
        ('{"level":"fatal"}', '{"level":"fatal"}'),
        ("[1]\n", "[1]"),
        ('{"level":"fatal","msg":{"a":1}}', "{'a': 1}"),
    ],
)  # fmt: skip
def test_complaints(log: str, complaint: str) -> None:
    assert messages.complaint(log) == complaint


def test_debugging_is_left_out() -> None:
    log = "\n".join(
        f'{{"level":"{level}","msg":"{level}"}}' for level in ("info", "debug", "warning")
    )
    assert messages.told(log, 2) == "info\nwarning"
    assert messages.told(log, 1) == "warning"
