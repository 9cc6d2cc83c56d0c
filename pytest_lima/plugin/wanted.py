"""Which tests of the run will want which VM, and how many still do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from pytest_lima.lima.engines import CONTAINERD, DOCKER
from pytest_lima.plugin.marks import Ask, ask_of, fresh_spec
from pytest_lima.spec import MachineSpec

# Which engine a test needs is told by the fixtures it uses.
_ENGINE_FIXTURES = {
    "lima_docker_host": DOCKER,
    "lima_docker_env": DOCKER,
    "lima_containerd_address": CONTAINERD,
}


class Wanted:
    """Counts of what the collected tests ask for."""

    def __init__(self) -> None:
        self._asks: Counter[Ask] = Counter()
        self._fresh: Counter[MachineSpec] = Counter()
        self._engines: dict[Ask, frozenset[str]] = {}

    def expect(self, items: Sequence[pytest.Item]) -> None:
        """Take in the tests that will run."""
        asking = [(item, ask) for item in items if (ask := ask_of(item)) is not None]
        self._asks = Counter(ask for _, ask in asking)
        self._fresh = Counter(filter(None, map(fresh_spec, items)))
        for item, ask in asking:
            names: Sequence[str] = getattr(item, "fixturenames", ())
            asked = {_ENGINE_FIXTURES[name] for name in names if name in _ENGINE_FIXTURES}
            self._engines[ask] = self._engines.get(ask, frozenset()) | asked

    def finished(self, item: pytest.Item) -> None:
        """A test has run; its VM has one user less."""
        ask = ask_of(item)
        if ask is not None:
            self._asks[ask] -= 1
        self._fresh.subtract(filter(None, [fresh_spec(item)]))

    def has_more(self, ask: Ask) -> bool:
        """Whether a later test asks for just this."""
        return self._asks[ask] > 0

    def has_more_of(self, spec: MachineSpec) -> bool:
        """Whether a later test wants such a machine, from whatever folder."""
        return any(count > 0 and ask.spec == spec for ask, count in self._asks.items())

    def fresh_after_this(self, spec: MachineSpec) -> int:
        """How many tests after the running one want such a machine for themselves."""
        return self._fresh[spec] - 1

    def engines_of(self, ask: Ask) -> frozenset[str]:
        """The engines that the tests with this ask use."""
        return self._engines.get(ask, frozenset())

    @property
    def engines(self) -> frozenset[str]:
        """The engines that any test uses."""
        return frozenset[str]().union(*self._engines.values())
