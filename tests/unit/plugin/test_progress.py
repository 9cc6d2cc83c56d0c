from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from pytest_lima.plugin import progress
from pytest_lima.plugin.progress import Progress


class Reporter:
    def __init__(self, isatty: bool) -> None:
        self.isatty = isatty
        self.written: list[str] = []

    def write(self, text: str, flush: bool = False) -> None:
        self.written.append(text)

    def ensure_newline(self) -> None:
        pass


def make(isatty: bool = True, verbosity: int = 0) -> tuple[Progress, Reporter]:
    reporter = Reporter(isatty)
    capture = SimpleNamespace(global_and_fixture_disabled=nullcontext)
    plugins = {"terminalreporter": reporter, "capturemanager": capture}
    manager = SimpleNamespace(get_plugin=plugins.get)
    config = SimpleNamespace(pluginmanager=manager, get_verbosity=lambda: verbosity)
    return Progress(config), reporter  # type: ignore[arg-type]


def test_a_live_line_is_cut_to_the_terminal(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.0)
    one, reporter = make()
    one.phase("pl-1", "provisioning")
    one.tick("x" * 500)
    assert reporter.written[-1].startswith("lima pl-1:   0 s  provisioning: xxx")
    assert len(reporter.written[-1]) == 39


def test_a_live_line_is_drawn_over(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    one, reporter = make()
    one.phase("pl-1", "booting")
    one.phase("pl-1", "provisioning")
    one.ready("pl-1", 12.34)
    assert reporter.written == [
        "lima pl-1:   0 s  booting", "\r\x1b[K", "lima pl-1:   0 s  provisioning",
        "\r\x1b[K", "lima pl-1: ready after 12.3 s\n",
    ]  # fmt: skip


def test_it_is_not_redrawn_more_often_than_one_can_read() -> None:
    one, reporter = make()
    one.phase("pl-1", "booting")
    for _ in range(100):
        one.tick("line")
    assert len(reporter.written) == 1


def test_ticks_are_for_a_terminal_alone(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.0)
    one, reporter = make(isatty=False)
    one.tick("before anything")
    one.phase("pl-1", "booting")
    one.tick("line")
    one.failed("pl-1")
    assert [text.split(" s")[0] for text in reporter.written] == [
        "lima pl-1:   0", "lima pl-1: failed after 0.0"
    ]  # fmt: skip
    assert reporter.written[-1].endswith(", while booting\n")


def test_what_a_guest_prints_cannot_move_the_cursor(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.0)
    one, reporter = make()
    one.phase("pl-1", "booting")
    one.tick("\x1b[2Jgone\r\n\x07")
    assert reporter.written[-1].endswith("?[2Jgone???")
    one.warn("two\nlines")
    assert reporter.written[-1] == "lima warning: two?lines\n"


@pytest.mark.parametrize("verbosity", [-1, -2])
def test_quiet_means_warnings_only(verbosity: int) -> None:
    one, reporter = make(verbosity=verbosity)
    one.phase("pl-1", "booting")
    one.tick("line")
    one.ready("pl-1", 1.0)
    one.failed("pl-1")
    one.warn("emulated")
    assert reporter.written == ["lima warning: emulated\n"]


def test_without_a_terminal_reporter_warnings_alone_are_told() -> None:
    recorded: list[dict] = []
    hook = SimpleNamespace(call_historic=lambda kwargs: recorded.append(kwargs))
    config = SimpleNamespace(
        pluginmanager=SimpleNamespace(get_plugin=lambda name: None), get_verbosity=lambda: 0,
        hook=SimpleNamespace(pytest_warning_recorded=hook),
    )  # fmt: skip
    one = Progress(config)  # type: ignore[arg-type]
    one.phase("pl-1", "booting")
    one.tick("line")
    assert recorded == []
    one.warn("x")
    assert str(recorded[0]["warning_message"].message) == "lima: x"


def test_a_boot_that_ends_in_another_thread_does_not_disturb_this_one(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.0)
    one, reporter = make()
    one.phase("pl-1", "booting")
    other = threading.Thread(target=one.ready, args=("pl-1", 1.0))

    def is_terminal() -> bool:
        """In the middle of a tick."""
        if other.ident is None:
            other.start()
            other.join(0.2)
        return True

    monkeypatch.setattr(one, "_is_terminal", is_terminal)
    one.tick("line")
    other.join(10)
    assert reporter.written[-1] == "lima pl-1: ready after 1.0 s\n"
