from __future__ import annotations

import inspect

import pytest

from pytest_lima.plugin import marks
from pytest_lima.plugin.marks import Ask
from pytest_lima.spec import MachineSpec, machine_spec


@pytest.mark.parametrize(
    ("templates", "ids"),
    [
        (["template:docker", "template:debian-13"], ["docker", "debian-13"]),
        (["template://docker", "./vms/big.yaml"], ["docker", "big"]),
        (["https://example.org/a/vm.yaml", "/x/other.yaml"], ["vm", "other"]),
        (["a/vm.yaml", "b/vm.yaml", "c.yaml"], ["vm-0", "vm-1", "c-2"]),
        (["template:docker", "template://docker"], ["docker-0", "docker-1"]),
    ],
)
def test_ids_of_templates_are_short_and_unique(templates, ids) -> None:
    assert marks.template_ids(templates) == ids


def test_equal_asks_are_one_parameter() -> None:
    one, other = (Ask(machine_spec(cpus=2, overrides={"a": 1, "b": [2]})) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != Ask(machine_spec(cpus=3)) != Ask()
    assert Ask() == Ask(MachineSpec())


def test_the_help_names_every_argument() -> None:
    for name in inspect.signature(machine_spec).parameters:
        assert f"{name}=" in marks.HELP


class Node:
    """A test with these markers, the closest first."""

    def __init__(self, *markers: pytest.Mark) -> None:
        self._markers = markers

    def iter_markers(self, name: str):
        return iter(self._markers)


def mark(*args: object, **kwargs: object) -> pytest.Mark:
    return pytest.mark.lima(*args, **kwargs).mark


@pytest.mark.parametrize(
    ("markers", "ask"),
    [
        ([], Ask()),
        ([mark()], Ask()),
        ([mark(cpus=4), mark(cpus=2, memory="1GiB")], Ask(MachineSpec(cpus=4, memory=1.0))),
    ],
)
def test_markers_add_up_and_the_closest_wins(markers, ask) -> None:
    assert marks._ask(Node(*markers)) == ask  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        (mark("docker"), "arguments have names, 'docker' has none"),
        (mark(cpu=2), "an unexpected keyword argument 'cpu'"),
        (mark(cpus=0), "cpus=0 is not accepted; give a whole number from 1"),
        (mark(memory="a lot"), "memory='a lot' is not accepted"),
    ],
)
def test_what_is_wrong_is_kept_for_the_setup(marker, problem: str) -> None:
    ask = marks._ask(Node(marker))  # type: ignore[arg-type]
    assert problem in ask.problem
    assert "machine_spec" not in ask.problem
    assert ask.spec == MachineSpec()
