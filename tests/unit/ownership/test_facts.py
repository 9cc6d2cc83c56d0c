"""What a machine is, and how many fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.host import Host
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.ownership.facts import describe, differences, most_vms
from pytest_lima.ownership.starting import Order
from pytest_lima.spec import MachineSpec


def order(text: str = "memory: 2GiB\n", **spec: object) -> Order:
    limactl = Limactl("limactl", Path("/h"), {}, {})
    host = Host(limactl, "2.2.0", "qemu", "x86_64", Accelerator("kvm"))
    return Order(host, "", MachineSpec(**spec), FilledTemplate(text, "key", {}, ()), 9.0)  # type: ignore[arg-type]


def test_equal_machines_do_not_differ() -> None:
    assert differences(describe(order(cpus=2)), describe(order(cpus=2))) == []


def test_differences_are_named() -> None:
    asked = describe(order("a", cpus=2, engines=frozenset({"docker"})))
    there = describe(order("b", cpus=4))
    assert differences(asked, there) == [
        "cpus is 4, asked for is 2", "engines is not set, asked for is docker",
    ]  # fmt: skip


def test_a_template_that_has_changed_is_told_when_it_is_all() -> None:
    [told] = differences(describe(order("a")), describe(order("b")))
    assert told.startswith("the template's text is ")


@pytest.mark.parametrize(
    ("text", "free", "most"),
    [("memory: 2GiB\n", 1, 1), ("memory: 512MiB\n", 1024, 2), ("cpus: 2\n", 4096, 1),
     ("memory: '{{.Half}}'\n", 1024, 1)],
)  # fmt: skip
def test_free_memory_bounds_them(
    monkeypatch: pytest.MonkeyPatch, text: str, free: int, most: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert most_vms(None, order(text), free) == most


def test_so_do_cores_and_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert most_vms(None, order("memory: 1MiB\n"), 65536) == 3
    assert most_vms(7, order(), 1) == 7
