"""Checked by mypy, never run: tests as their authors annotate them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import pytest

from pytest_lima import CommandResult, Instance, LimaFactory, Settings, lima_instance


@pytest.fixture(scope="session")
def lima_template(lima_settings: Settings) -> str:
    assert_type(lima_settings.cpus, int | None)
    return "template:debian"


@pytest.fixture(scope="session")
def lima_overrides() -> Mapping[str, Any]:
    return {"cpus": 4}


@pytest.mark.lima(cpus=2, memory="2GiB")
def test_machine(lima: Instance, tmp_path: Path) -> None:
    result = lima.run(["uname", "-r"], timeout=5, env={"A": "b"})
    assert_type(result, CommandResult)
    assert_type(result.stdout, str)
    assert_type(result.stdout_bytes, bytes)
    assert_type(lima.read_bytes("/etc/hostname"), bytes)
    assert_type(lima.ssh_port, int)
    assert_type(lima.dir, Path)
    lima.put(tmp_path, "/tmp/there")


def test_two(lima_factory: LimaFactory, lima_docker_env: dict[str, str]) -> None:
    assert_type(lima_factory(name="db", memory=4), Instance)


def without_pytest() -> None:
    with lima_instance(template="template:alpine", engine="docker") as vm:
        assert_type(vm, Instance)
