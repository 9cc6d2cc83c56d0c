from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lima.lima import logs


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({}, "serial.log"),
        ({"serial.log": "x"}, "serial.log"),
        ({"serialv.log": "x"}, "serialv.log"),
        ({"serial.log": "", "serialp.log": "", "serialv.log": "x"}, "serialv.log"),
        ({"serial.log": "xx", "serialv.log": "x"}, "serial.log"),
    ],
)
def test_the_console_is_the_port_that_was_written_to(tmp_path: Path, files, chosen) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert logs.console(tmp_path) == tmp_path / chosen


def test_read_is_bounded_and_survives_anything(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert logs.read(log) == ""
    assert logs.read(tmp_path) == ""
    log.write_bytes(b"a\xffb")
    assert logs.read(log) == "a\ufffdb"
    log.write_bytes(b"x" * 1_000_000 + b"end")
    assert logs.read(log, limit=5) == "xxend"
    assert len(logs.read(log)) == 256 * 1024


def test_tail_skips_empty_lines_and_control_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\r\n\x1b[2J\x07two\r\n \x00\r\n\r\n\tthree\tfour\x08\r\n")
    assert logs.tail(log) == "one\n[2Jtwo\nthree\tfour"
    assert logs.tail(log, 1) == "three\tfour"
    assert logs.tail(tmp_path / "missing") == ""


def test_the_text_of_a_woken_guest_s_console_begins_before_it_was_kept(tmp_path: Path) -> None:
    assert logs.console_text(tmp_path) == ""
    (tmp_path / logs.KEPT_CONSOLE).write_text("booted\n")
    assert logs.console_text(tmp_path) == "booted\n"
    (tmp_path / "serial.log").write_text("rebooted\n")
    assert logs.console_text(tmp_path) == "booted\nrebooted\n"
    (tmp_path / "serial.log").write_text("x" * 1_000_000)
    assert logs.console_text(tmp_path) == "x" * 256 * 1024
    logs.clear(tmp_path)
    assert logs.console_text(tmp_path) == ""
