"""Shows a boot while it goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from pytest_lima import realtime
from pytest_lima.observer import Observer

_REDRAW_SECONDS = 0.5


class Screen:
    """Where pytest's reporter writes to, held fast: what a test prints may be led elsewhere.

    Suspending pytest's capture would let its own streams take the place of those that the test
    has redirected, and let what other threads print pass. Made while nothing is captured.
    """

    def __init__(self, reporter: object | None) -> None:
        self._writer = getattr(reporter, "_tw", None)
        file = getattr(self._writer, "_file", None)
        try:
            copy = os.dup(file.fileno()) if file is not None else None
        except (AttributeError, OSError, ValueError):  # no file of the system: nobody moves it
            copy = None
        self._file: TextIO | None = None
        if copy is not None:
            encoding = getattr(file, "encoding", None)
            self._file = open(copy, "w", encoding=encoding, errors="replace")  # noqa: PTH123, SIM115

    @contextmanager
    def shown(self) -> Iterator[None]:
        """What the reporter writes meanwhile goes there."""
        if self._file is None or self._file.closed:
            yield
            return
        found = self._writer._file  # type: ignore[union-attr] # noqa: SLF001 - no public way
        self._writer._file = self._file  # type: ignore[union-attr] # noqa: SLF001
        try:
            yield
            self._file.flush()
        finally:
            self._writer._file = found  # type: ignore[union-attr] # noqa: SLF001

    @property
    def columns(self) -> int:
        """How wide it is."""
        size = (80, 24)
        if self._file is not None and self._file.isatty():
            size = os.get_terminal_size(self._file.fileno())
        return shutil.get_terminal_size(size).columns  # COLUMNS wins

    def close(self) -> None:
        """Let go of it."""
        if self._file is not None:
            self._file.close()


_screen_key = pytest.StashKey[Screen]()


def hold_screen(config: pytest.Config) -> None:
    """Between the collection and the first test, when nothing is captured."""
    if _screen_key not in config.stash and not hasattr(config, "workerinput"):
        config.stash[_screen_key] = Screen(config.pluginmanager.get_plugin("terminalreporter"))


def held_screen(config: pytest.Config) -> Screen | None:
    """The one of this run."""
    return config.stash.get(_screen_key, None)


def let_go_of_screen(config: pytest.Config) -> None:
    """Nothing is shown any more."""
    if _screen_key in config.stash:
        config.stash[_screen_key].close()


class Progress(Observer):
    """Writes through pytest's terminal reporter; without one (in an xdist worker), warnings only.

    Warnings are shown even with ``-q``: what goes on may not be what was asked for.
    """

    def __init__(self, config: pytest.Config, screen: Screen | None = None) -> None:
        """``screen``: the reporter's, if it may be led elsewhere."""
        self._config = config
        self._screen = screen or Screen(None)
        manager = config.pluginmanager
        # A worker of xdist has one too, but it goes nowhere.
        worker = hasattr(config, "workerinput")
        self._reporter = None if worker else manager.get_plugin("terminalreporter")
        self._quiet = config.get_verbosity() < 0
        self._lock = threading.RLock()  # a test may start VMs in threads of its own
        self._boots: dict[str, tuple[float, str]] = {}
        self._drawn = 0.0
        self._live = False

    def phase(self, instance: str, phase: str) -> None:
        """Print it; on a terminal, over the line before."""
        with self._lock:
            begun, _ = self._boots.pop(instance, (realtime.monotonic(), ""))
            self._boots[instance] = (begun, phase)
            self._show(instance, begun, phase)

    def tick(self, line: str) -> None:
        """Redraw the live line with what the guest said last."""
        with self._lock:
            due = realtime.monotonic() - self._drawn >= _REDRAW_SECONDS
            if self._boots and self._is_terminal() and due:
                instance, (begun, phase) = next(reversed(self._boots.items()))
                self._show(instance, begun, f"{phase}: {line}" if line else phase)

    def ready(self, instance: str, seconds: float) -> None:
        """The last line of a boot."""
        with self._lock:
            self._boots.pop(instance, None)
        if not self._quiet:
            self._write(f"lima {instance}: ready after {seconds:.1f} s")

    def seconds(self, instance: str) -> float:
        """How long a boot has been going on."""
        begun, _ = self._boots.get(instance, (realtime.monotonic(), ""))
        return realtime.monotonic() - begun

    def joined(self, instance: str, seconds: float) -> None:
        """One line for a VM that was there already."""
        with self._lock:
            self._boots.pop(instance, None)
        if not self._quiet:
            self._write(f"lima {instance}: joined in {seconds:.1f} s")

    def failed(self, instance: str) -> None:
        """The last line of a boot that failed; the test's report says why."""
        now = realtime.monotonic()
        with self._lock:
            begun, phase = self._boots.pop(instance, (now, "starting"))
        if not self._quiet:
            self._write(f"lima {instance}: failed after {now - begun:.1f} s, while {phase}")

    def warn(self, message: str) -> None:
        """A line of its own; of an xdist worker's, one in the summary of warnings."""
        if self._reporter is None:
            self._record(f"lima: {message}")
        else:
            self._write(f"lima warning: {message}")

    def _record(self, message: str) -> None:
        """Hand it to pytest as recorded: issued, it would be an error for whoever wants that."""
        warning = pytest.PytestWarning(message)
        self._config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": warnings.WarningMessage(warning, type(warning), __file__, 0),
                "when": "runtest",
                "nodeid": "",
                "location": None,
            }
        )

    def _show(self, instance: str, begun: float, text: str) -> None:
        if not self._quiet:
            self._drawn = realtime.monotonic()
            line = f"lima {instance}: {self._drawn - begun:3.0f} s  {text}"
            self._write(line, live=self._is_terminal())

    def _write(self, text: str, *, live: bool = False) -> None:
        """Put a line on the real terminal, even while pytest captures output."""
        if self._reporter is None:
            return
        text = "".join(char if char.isprintable() else "?" for char in text)
        with self._lock, self._screen.shown():
            if self._live:
                self._reporter.write("\r\x1b[K")
            else:
                self._reporter.ensure_newline()
            width = self._screen.columns - 1
            self._reporter.write(text[:width] if live else text + "\n", flush=True)
            self._live = live

    def _is_terminal(self) -> bool:
        return bool(self._reporter is not None and self._reporter.isatty)
