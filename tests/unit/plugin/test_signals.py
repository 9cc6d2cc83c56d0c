"""SIGTERM and SIGHUP, in this process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from pytest_lima.plugin.signals import Signals


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def signals() -> Iterator[Signals]:
    one = Signals()
    yield one
    one.restore()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_run_ends_with_the_status_of_the_signal(
    signals: Signals, number: int, status: int
) -> None:
    signals.install()
    with pytest.raises(pytest.exit.Exception, match="received SIG") as caught:
        os.kill(os.getpid(), number)
    assert caught.value.returncode == status


def test_restored_they_are_as_before(signals: Signals) -> None:
    signals.install()
    signals.install()
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize("raises", [False, True])
def test_a_handler_that_was_there_is_called_first(signals: Signals, raises: bool) -> None:
    called = []

    def handler(number: int, frame: object) -> None:
        called.append(number)
        if raises:
            raise SystemExit(3)

    signal.signal(signal.SIGTERM, handler)
    signals.install()
    with pytest.raises(pytest.exit.Exception):
        os.kill(os.getpid(), signal.SIGTERM)
    assert called == [signal.SIGTERM]
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_what_is_ignored_stays_ignored(signals: Signals) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.install()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_one_that_was_put_over_ours_stays(signals: Signals) -> None:
    signals.install()

    def later(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, later)
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) == later


def test_a_thread_changes_nothing(signals: Signals) -> None:
    thread = threading.Thread(target=signals.install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
