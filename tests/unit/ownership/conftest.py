"""What several tests of this room need."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_lima.ownership.pool import Pool
from pytest_lima.settings import resolve

if TYPE_CHECKING:
    from fakelima.control import FakeLima

    from pytest_lima.observer import Observer


@pytest.fixture
def pool(fake_lima: FakeLima, observer: Observer) -> Callable[..., Pool]:
    """Makes the pool of a run."""

    def make(**options: str) -> Pool:
        return Pool(resolve(options, os.environ, {}), os.environ, observer)

    return make
