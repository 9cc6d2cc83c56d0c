"""The machines that a pool holds, for several threads at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pytest_lima.instance import Instance
from pytest_lima.ownership.starting import Order


@dataclass
class Member:
    """A machine that is held.

    Attributes:
        order: What it is.
        instance: For the tests.
        failed: A test that used it has failed.
    """

    order: Order
    instance: Instance
    failed: bool = False


class Members:
    """Machines by key: that of their spec for those that are shared, else their name.

    Attributes:
        closings: How often all of them were given back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for a look, never for a boot
        self._all: dict[str, Member] = {}
        self._turns: dict[str, threading.Lock] = {}
        self.closings = 0

    def held(self) -> dict[str, Member]:
        """Those of now; other threads may add some, and take some away."""
        with self._lock:
            return dict(self._all)

    def add(self, key: str, member: Member) -> None:
        """Hold one more."""
        with self._lock:
            self._all[key] = member

    def drop(self, key: str) -> None:
        """It was given back."""
        with self._lock:
            del self._all[key]

    def turn(self, key: str) -> threading.Lock:
        """Held by whoever starts, renews or gives back the machine of a key; others wait."""
        with self._lock:
            return self._turns.setdefault(key, threading.Lock())

    def begin_closing(self) -> None:
        """Whatever is being started now comes too late."""
        with self._lock:
            self.closings += 1
