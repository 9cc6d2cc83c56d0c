"""What several tests of this room need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_lima.lima import identity
from pytest_lima.ownership import claims as module
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.pool import Pool
from pytest_lima.ownership.run import Run
from pytest_lima.settings import Settings, resolve

if TYPE_CHECKING:
    from fakelima.control import FakeLima

    from pytest_lima.observer import Observer


@pytest.fixture
def pool(fake_lima: FakeLima, observer: Observer) -> Callable[..., Pool]:
    """Makes the pool of a run."""

    def make(**options: str) -> Pool:
        return Pool(resolve(options, os.environ, {}), os.environ, observer)

    return make


class Process:
    """Somebody else, with claims of their own."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self._popen = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        found = identity.of(self._popen.pid)
        assert found is not None
        self.identity = found
        self.ledger = ledger
        self._monkeypatch = monkeypatch

    def do(self, settings: Settings, run: Run, act: Callable[[Claims], object]) -> object:
        with self._monkeypatch.context() as patch:
            patch.setattr(module, "this_process", lambda: self.identity)
            return act(Claims(self.ledger, settings, run))

    def die(self) -> None:
        self._popen.kill()
        self._popen.wait()


@pytest.fixture
def other(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    process = Process(ledger, monkeypatch)
    yield process
    process.die()
