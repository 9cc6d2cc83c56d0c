"""Which tests of the run will want which VM, and how many still do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from pytest_lima.lima.engines import CONTAINERD, DOCKER
from pytest_lima.plugin.marks import Ask, ask_of, fresh_spec, names_of
from pytest_lima.spec import MachineSpec

# Which engine a test needs is told by the fixtures it uses.
_ENGINE_FIXTURES = {
    "lima_docker_host": DOCKER,
    "lima_docker_env": DOCKER,
    "lima_containerd_address": CONTAINERD,
}


class Wanted:
    """What the collected tests ask for.

    Attributes:
        next: The test that runs after the running one.
    """

    def __init__(self, *, distributed: bool) -> None:
        """``distributed``: other processes take of the same tests."""
        self.next: pytest.Item | None = None
        self._distributed = distributed
        self._left: set[pytest.Item] = set()
        self._asks: Counter[Ask] = Counter()
        self._fresh: Counter[MachineSpec] = Counter()
        self._engines: dict[Ask, frozenset[str]] = {}

    def expect(self, items: Sequence[pytest.Item]) -> None:
        """Take in the tests that will run."""
        self._left = set(items)
        asking = [(item, ask) for item in items if (ask := ask_of(item)) is not None]
        self._asks = Counter(ask for _, ask in asking)
        self._fresh = Counter(filter(None, map(fresh_spec, items)))
        for item, ask in asking:
            asked = {_ENGINE_FIXTURES[name] for name in names_of(item) & _ENGINE_FIXTURES.keys()}
            self._engines[ask] = self._engines.get(ask, frozenset()) | asked

    def finished(self, item: pytest.Item) -> None:
        """A test has run; plugins that run it again tear it down each time."""
        if item in self._left:
            self._left.remove(item)
            self._asks.subtract(filter(None, [ask_of(item)]))
            self._fresh.subtract(filter(None, [fresh_spec(item)]))

    def has_more(self, ask: Ask) -> bool:
        """Whether a later test asks for just this."""
        return self._asks[ask] > 0

    def has_more_like(self, ask: Ask) -> bool:
        """Whether a later test may come to the same machine, from whatever folder."""
        return any(count > 0 and other.like(ask) for other, count in self._asks.items())

    def fresh_after(self, item: pytest.Item) -> int:
        """How many tests of this process will want a machine like this one's for themselves."""
        spec = fresh_spec(item)
        if spec is None:
            return 0
        if self._distributed:
            return int(self.next is not None and fresh_spec(self.next) == spec)
        return self._fresh[spec] - (item in self._left)

    def engines_of(self, ask: Ask) -> frozenset[str]:
        """The engines that the tests with this ask use."""
        return self._engines.get(ask, frozenset())

    @property
    def engines(self) -> frozenset[str]:
        """The engines that any test uses."""
        return frozenset[str]().union(*self._engines.values())
