from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_lima.lima.events import EventLog, HostStatus


def event(**status: object) -> str:
    return json.dumps({"time": "2026-11-23T10:00:00Z", "status": status}) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ha.stdout.log"


def test_before_the_host_agent_writes_nothing_is_known(path: Path) -> None:
    log = EventLog(path)
    assert log.read() == HostStatus()
    path.write_text("")
    assert log.read() == HostStatus()


def test_what_was_said_adds_up(path: Path) -> None:
    log = EventLog(path)
    path.write_text(event(sshLocalPort=60022))
    assert log.read() == HostStatus(ssh_port=60022)
    with path.open("a") as file:
        file.write(event(running=True, errors=["degraded"]) + event())
    assert log.read() == HostStatus(60022, running=True, errors=("degraded",))
    with path.open("a") as file:
        file.write(event(exiting=True, errors=["gone", "for good"]))
    last = HostStatus(60022, running=True, exiting=True, errors=("gone", "for good"))
    assert log.read() == last
    assert log.read() == last


def test_a_half_written_line_waits_for_its_end(path: Path) -> None:
    log = EventLog(path)
    whole = event(sshLocalPort=60022, errors=["ünïcode"])
    raw = whole.encode()
    for cut in range(len(raw)):
        path.write_bytes(raw[:cut])
        assert log.read() == HostStatus()
    path.write_bytes(raw)
    assert log.read() == HostStatus(60022, errors=("ünïcode",))


@pytest.mark.parametrize(
    "line",
    [
        "", "not json", "{", "[]", "1", "null", '"text"', "{}", '{"status": null}',
        '{"status": []}', '{"status": "running"}', "\x00\xff", '{"status": {"sshLocalPort": "x"}}',
        '{"status": {"sshLocalPort": [22]}}', '{"status": {"errors": 5}}', '{"status": {"sshLo',
    ],
)  # fmt: skip
def test_lines_that_are_no_events_are_passed_over(path: Path, line: str) -> None:
    path.write_text(event(sshLocalPort=1) + line + "\n" + event(running=True))
    assert EventLog(path).read() == HostStatus(1, running=True)


def test_a_log_of_any_length_is_read_to_its_end(path: Path) -> None:
    path.write_text("x" * 3_000_000 + "\n" + event(running=True) * 20_000 + event(exiting=True))
    log = EventLog(path)
    for _ in range(10):
        status = log.read()
    assert status == HostStatus(running=True, exiting=True)
