"""Checked by mypy, never run: tests as their authors annotate them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import pytest

from pytest_lima import (
    CommandResult,
    Instance,
    LimaFactory,
    MachineArguments,
    Settings,
    lima_instance,
)


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


def test_files(lima: Instance, tmp_path: Path) -> None:
    lima.write_text("/etc/app.conf", "x", user="root", mode=0o600)
    lima.write_bytes("/etc/app.conf", b"x", user="root")
    lima.put(tmp_path, "/srv/www", user="www-data")
    lima.put(tmp_path / "file", "/srv/www/file", mode=0o640)
    lima.write_text("/etc/app.conf", "x", "root")  # type: ignore[call-arg]
    lima.write_bytes("/etc/app.conf", b"x", mode="600")  # type: ignore[arg-type]


def test_two(lima_factory: LimaFactory, lima_docker_env: dict[str, str]) -> None:
    assert_type(lima_factory(name="db", memory=4), Instance)


def without_pytest() -> None:
    with lima_instance(template="template:alpine", engine="docker") as vm:
        assert_type(vm, Instance)


SMALL: MachineArguments = {"cpus": 1, "memory": "512MiB"}
WRONG: MachineArguments = {"cpu": 1}  # type: ignore[typeddict-unknown-key]


@pytest.mark.lima(**SMALL, fresh=True)
def test_small(lima: Instance, lima_factory: LimaFactory) -> None:
    assert_type(lima_factory(**SMALL, name="db"), Instance)
    assert_type(lima_factory(disk=10, param={"a": "b"}, engine="docker"), Instance)
    assert_type(lima_factory(provision=["true"], mounts=["~/src"], set="vmType=qemu"), Instance)


def with_wrong_arguments(lima_factory: LimaFactory) -> None:
    lima_factory(cpu=2)  # type: ignore[call-arg]
    lima_factory(cpus="2")  # type: ignore[arg-type]
    lima_factory("db")  # type: ignore[call-arg]
    lima_factory(mounts=[Path()])  # type: ignore[list-item]
    lima_factory(fresh=True)  # type: ignore[call-arg]
    lima_instance(template=["template:debian"])  # type: ignore[arg-type]
    lima_instance(templates="template:debian")  # type: ignore[call-arg]
    lima_instance(networks={"lima": "shared"})  # type: ignore[arg-type]
