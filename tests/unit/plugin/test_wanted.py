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


def wanted(
    items: list[pytest.Item], *, distributed: bool = False, engines: frozenset[str] | None = None
) -> Wanted:
    one = Wanted(distributed=distributed, engines=engines)
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
    assert ask and one.engines_of(ask) == {"docker"}
    other = ask_of(named(items, "test_reset"))
    assert other and one.engines_of(other) == frozenset()


BOTH = {"docker", "containerd"}


@pytest.mark.parametrize(
    ("engine", "fixture", "option", "engines"),
    [
        (None, None, None, set()),
        (None, "lima_docker_env", None, {"docker"}),
        (None, "lima_containerd_address", {"docker"}, {"docker"}),
        (None, None, {"docker"}, {"docker"}),
        ("containerd", None, {"docker"}, {"containerd"}),
        ("none", None, {"docker"}, set()),
        ("docker", None, set(), {"docker"}),
        ("docker", "lima_containerd_address", None, BOTH),
        ("both", None, None, BOTH),
    ],
)
def test_the_closest_says_which_engines(engine, fixture, option, engines) -> None:
    marked = {} if engine is None else {"engine": engine}
    fixtures = ["lima", *filter(None, [fixture])]
    item: Any = Item(collected("test_it", *fixtures, ask=Ask(), **marked))
    named = None if option is None else frozenset(option)
    one = wanted([item], engines=named)
    assert one.engines_for(item) == one.engines_of(Ask()) == engines
    # Of those that share a VM, each finds in it what it wants.
    other: Any = Item(collected("test_other", "lima", ask=Ask()))
    one.expect([item, other])
    assert one.engines_of(Ask()) == engines | (named or set())
    assert one.engines_of(Ask(fresh=True)) == (named or set())


def test_fresh_ones_with_other_engines_are_others() -> None:
    tests: list[Any] = [
        Item(collected("test_bare", "lima_fresh")),
        Item(collected("test_too", "lima_fresh", engine="none")),
        Item(collected("test_docker", "lima_fresh", "lima_docker_host", "lima", ask=Ask())),
        Item(collected("test_marked", "lima_fresh", engine="docker")),
    ]
    one = wanted(tests)
    assert [one.engines_for(test) for test in tests] == [set(), set(), {"docker"}, {"docker"}]
    assert [one.fresh_after(test) for test in tests] == [1, 1, 1, 1]
    for test in tests[:3]:
        one.finished(test)
    assert [one.fresh_after(test) for test in tests] == [0, 0, 1, 0]


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
