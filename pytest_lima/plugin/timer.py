"""pytest-timeout's timer: it stands still while a VM is started, reset or removed for the test.

A boot has a deadline of its own, ``--lima-timeout``; the timer measures what the test does. It runs
anew, with all of its time, when the VM is there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Timer:
    """The timer of the test that runs, if pytest-timeout has set one."""

    def __init__(self) -> None:
        self._set: tuple[pytest.Item, object] | None = None

    def was_set(self, item: pytest.Item, settings: object) -> None:
        """pytest-timeout starts it for ``item``."""
        self._set = (item, settings)

    def was_cancelled(self) -> None:
        """pytest-timeout ends it."""
        self._set = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It doesn't run meanwhile."""
        # One that works by signals can't be set in another thread.
        if self._set is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        item, settings = self._set
        hook = item.config.hook
        hook.pytest_timeout_cancel_timer(item=item)
        try:
            yield
        finally:
            hook.pytest_timeout_set_timer(item=item, settings=settings)
