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


def forked(act) -> int:
    """How a forked child ends that does this; 0 if it gets to its end."""
    pid = os.fork()
    if not pid:
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(77)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_forked_child_ends_by_the_signal(signals: Signals, number: int) -> None:
    signals.install()
    assert forked(lambda: os.kill(os.getpid(), number)) == -number
    with pytest.raises(pytest.exit.Exception):
        os.kill(os.getpid(), number)


def test_a_forked_child_has_the_handler_that_was_there(signals: Signals) -> None:
    def handler(number: int, frame: object) -> None:
        os._exit(5)

    signal.signal(signal.SIGTERM, handler)
    signals.install()
    assert forked(lambda: signal.raise_signal(signal.SIGTERM)) == 5


@pytest.mark.parametrize("previous", [signal.SIG_DFL, "a handler"])
def test_whoever_has_kept_ours_has_what_was_there_in_a_child(signals: Signals, previous) -> None:
    """Another plugin's handler stays in a child, and calls what it has found."""
    if previous == "a handler":
        previous = lambda *_: os._exit(5)  # noqa: E731
    signal.signal(signal.SIGTERM, previous)
    signals.install()
    ours = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *given: ours(*given))
    expected = -signal.SIGTERM if previous == signal.SIG_DFL else 5
    assert forked(lambda: signal.raise_signal(signal.SIGTERM)) == expected


def test_whoever_has_kept_ours_has_what_was_there_after_the_run(signals: Signals) -> None:
    def all_of_it() -> None:
        signals.install()
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *given: ours(*given))
        signals.restore()
        signal.raise_signal(signal.SIGTERM)

    assert forked(all_of_it) == -signal.SIGTERM


def test_a_child_may_have_its_own(signals: Signals) -> None:
    def run_of_its_own() -> None:
        own = Signals()
        own.install()
        try:
            signal.raise_signal(signal.SIGTERM)
        except pytest.exit.Exception as error:
            os._exit(error.returncode)

    signals.install()
    assert forked(run_of_its_own) == 143


def test_it_may_arrive_twice(signals: Signals) -> None:
    signals.install()
    for _ in range(2):
        with pytest.raises(pytest.exit.Exception):
            os.kill(os.getpid(), signal.SIGTERM)
