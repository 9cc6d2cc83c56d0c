from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path

import pytest

from pytest_lima import errors
from pytest_lima.errors import CommandError, CommandTimeoutError, LimaError, StartError
from pytest_lima.guest.commands import CommandResult

KINDS = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, LimaError)
]
PLAIN = [kind for kind in KINDS if kind not in (CommandError, CommandTimeoutError)]


def failed(stdout: bytes = b"", stderr: bytes = b"") -> CommandError:
    return CommandError(CommandResult("make check", 2, stdout, stderr, 1.26))


def test_the_drawing_of_the_tree_is_complete() -> None:
    for kind in KINDS:
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__doc__


def test_all_five_lines_in_order() -> None:
    error = StartError("it broke", ran="limactl start x", seen="boom", remedy="mend it", log="/l")
    assert str(error).splitlines() == [
        "it broke", "  ran: limactl start x", "  seen: boom", "  do: mend it", "  log: /l",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({}, ["it broke"]),
        ({"seen": ""}, ["it broke"]),
        ({"log": Path("/tmp/x")}, ["it broke", "  log: /tmp/x"]),
        ({"remedy": "mend"}, ["it broke", "  do: mend"]),
    ],
)
def test_lines_that_say_nothing_are_left_out(fields: dict[str, str], lines: list[str]) -> None:
    assert str(LimaError("it broke", **fields)).splitlines() == lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\n\n  two \r\nthree\n", "one | two | three"),
        ("\x1b[31mred\x07\0", "?[31mred??"),
        ("a\u2028b\x0bc", "a | b | c"),
        ("ünïcode ✓", "ünïcode ✓"),
        ("\u202egnp.exe", "?gnp.exe"),  # a right-to-left override could hide what is said
    ],
)
def test_what_a_guest_says_is_one_harmless_line(text: str, shown: str) -> None:
    assert str(LimaError("what", seen=text)).splitlines() == ["what", f"  seen: {shown}"]
    assert str(LimaError(text)).splitlines() == [shown]


def test_a_long_text_keeps_its_end() -> None:
    line = str(LimaError("what", seen="x" * 100_000 + " the cause")).splitlines()[1]
    assert line.endswith("x the cause")
    assert len(line) < 650
    assert "…" in line


@pytest.mark.parametrize("clone", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("kind", PLAIN)
def test_errors_cross_process_boundaries(kind: type[LimaError], clone) -> None:
    error = kind("what", ran="ran", seen="seen", remedy="remedy", log=Path("/log"))
    error.add_note("a note")
    other = clone(error)
    assert type(other) is kind
    assert str(other) == str(error)
    assert other.args == error.args
    assert other.__notes__ == ["a note"]


def test_a_command_error_keeps_its_result() -> None:
    other = pickle.loads(pickle.dumps(failed(b"\xff out", b"err")))
    assert isinstance(other, CommandError)
    assert (other.result.returncode, other.result.stdout_bytes) == (2, b"\xff out")
    assert str(other) == str(failed(b"\xff out", b"err"))


def test_a_timeout_keeps_its_output() -> None:
    error = CommandTimeoutError("sleep 9", 1.5, stdout="out", stderr="err", killed=True)
    other = pickle.loads(pickle.dumps(error))
    assert (other.stdout, other.stderr, str(other)) == ("out", "err", str(error))


@pytest.mark.parametrize(
    ("stdout", "stderr", "seen"),
    [
        (b"out\n", b"err\n", "err"),
        (b"out\n", b" \n", "out"),
        (b"", b"", "no output"),
        (b"", b"1\n2\n3\n4\n5\n6\n", "2 | 3 | 4 | 5 | 6"),
    ],
)
def test_a_command_error_shows_what_was_printed(stdout: bytes, stderr: bytes, seen: str) -> None:
    assert str(failed(stdout, stderr)).splitlines() == [
        "the command returned 2 after 1.3 s", "  ran: make check", f"  seen: {seen}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("killed", "remedy"), [(True, "raise timeout="), (False, "may still run in the guest")]
)
def test_a_timeout_says_whether_the_command_still_runs(killed: bool, remedy: str) -> None:
    error = CommandTimeoutError("sleep 9", 1.5, stdout="", stderr="", killed=killed)
    assert str(error).splitlines()[:3] == [
        "the command did not end within 1.5 s", "  ran: sleep 9", "  seen: no output",
    ]  # fmt: skip
    assert remedy in str(error)
