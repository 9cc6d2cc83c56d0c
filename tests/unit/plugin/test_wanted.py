from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lima.plugin.marks import Ask, ask_of
from pytest_lima.plugin.wanted import Wanted
from pytest_lima.spec import machine_spec


def collected(name: str, *fixtures: str, ask: Ask | None = None, **arguments: object) -> Any:
    """A test with these fixtures, and a marker with these arguments."""
    marker = pytest.mark.lima(**arguments).mark
    return SimpleNamespace(
        name=name, fixturenames=[*fixtures], iter_markers=lambda _: [marker],
        callspec=SimpleNamespace(params={"lima": ask} if ask else {}),
    )  # fmt: skip


class Item:
    """Hashable by identity, as a pytest.Item is."""

    def __init__(self, test: Any) -> None:
        self.__dict__.update(vars(test))


@pytest.fixture
def items() -> list[Any]:
    return [Item(test) for test in (
        collected("test_plain"),
        collected("test_shared", "lima", "lima_docker_host", ask=Ask()),
        collected("test_fresh", "lima_fresh"),
        collected("test_other_fresh", "lima_fresh", cpus=4),
        collected("test_fresh_too", "lima_fresh"),
        collected("test_reset", "lima", ask=Ask(machine_spec(), fresh=True), fresh=True),
    )]  # fmt: skip


def wanted(items: list[pytest.Item], *, distributed: bool = False) -> Wanted:
    one = Wanted(distributed=distributed)
    one.expect(items)
    return one


def named(items: list[pytest.Item], name: str) -> pytest.Item:
    return next(item for item in items if item.name == name)


def test_a_vm_is_wanted_until_its_last_test_has_run(items: list[pytest.Item]) -> None:
    one = wanted(items)
    shared = named(items, "test_shared")
    ask = ask_of(shared)
    assert ask and one.has_more(ask) and one.has_more_like(ask)
    one.finished(shared)
    one.finished(shared)  # a second time, as of one that was run again
    # One that is reset before each test is another, though its spec is the same.
    assert not one.has_more(ask) and not one.has_more_like(ask)


def test_engines_are_those_of_the_fixtures(items: list[pytest.Item]) -> None:
    one = wanted(items)
    ask = ask_of(named(items, "test_shared"))
    assert ask and one.engines_of(ask) == one.engines == {"docker"}
    other = ask_of(named(items, "test_reset"))
    assert other and one.engines_of(other) == frozenset()


def test_fresh_ones_are_counted_by_kind(items: list[pytest.Item]) -> None:
    one = wanted(items)
    first, second = named(items, "test_fresh"), named(items, "test_fresh_too")
    assert one.fresh_after(first) == 1
    assert one.fresh_after(named(items, "test_other_fresh")) == 0
    assert one.fresh_after(named(items, "test_plain")) == 0
    one.finished(first)
    assert one.fresh_after(second) == 0


def test_of_xdist_s_workers_each_knows_its_next_alone(items: list[pytest.Item]) -> None:
    one = wanted(items, distributed=True)
    first, second = named(items, "test_fresh"), named(items, "test_fresh_too")
    assert one.fresh_after(first) == 0
    one.next = named(items, "test_other_fresh")
    assert one.fresh_after(first) == 0
    one.next = second
    assert one.fresh_after(first) == 1
