from __future__ import annotations

import pytest

from pytest_lima.plugin.marks import ask_of
from pytest_lima.plugin.wanted import Wanted

TESTS = """
    import pytest

    def test_plain(): pass
    def test_shared(lima, lima_docker_host): pass
    def test_fresh(lima_fresh): pass
    @pytest.mark.lima(cpus=4)
    def test_other_fresh(lima_fresh): pass
    def test_fresh_too(lima_fresh): pass
    @pytest.mark.lima(fresh=True)
    def test_reset(lima): pass
"""


@pytest.fixture
def items(pytester: pytest.Pytester) -> list[pytest.Item]:
    return pytester.getitems(TESTS)


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
