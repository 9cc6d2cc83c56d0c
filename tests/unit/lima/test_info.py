from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_lima.lima.info import parse

ENTRY = {
    "name": "pl-1", "status": "Running", "dir": "/h/pl-1", "vmType": "qemu", "arch": "x86_64",
    "cpus": 2, "memory": 2147483648, "sshLocalPort": 60022, "hostAgentPID": 11, "driverPID": 12,
    "config": {"user": {"name": "ann", "uid": 1000}},
}  # fmt: skip
FATAL = '{"level":"info","msg":"starting"}\n{"level":"fatal","msg":"disk full"}\n'


def test_a_running_instance() -> None:
    info = parse(json.dumps(ENTRY))
    assert info is not None
    assert (info.name, info.status, info.dir) == ("pl-1", "Running", Path("/h/pl-1"))
    assert (info.vmtype, info.arch, info.cpus, info.memory) == ("qemu", "x86_64", 2, 2048)
    assert info.user == "ann"


def test_of_a_broken_one_there_is_less() -> None:
    broken = {"name": "pl-1", "status": "Broken", "dir": "/h/pl-1", "config": None}
    info = parse(json.dumps(broken))
    assert info is not None
    assert (info.status, info.memory, info.config) == ("Broken", 0, {})


@pytest.mark.parametrize(
    "line",
    ["", "not json", "[]", "null", '{"name": "pl-1"}', json.dumps({**ENTRY, "memory": "2GiB"})],
)
def test_what_can_not_be_read_is_none(line: str) -> None:
    assert parse(line) is None
