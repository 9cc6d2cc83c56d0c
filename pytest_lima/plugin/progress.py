"""Shows a boot while it goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext

import pytest

from pytest_lima import realtime
from pytest_lima.observer import Observer

_REDRAW_SECONDS = 0.5


class Progress(Observer):
    """Writes through pytest's terminal reporter; without one (in an xdist worker), warnings only.

    Warnings are shown even with ``-q``: what goes on may not be what was asked for.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        manager = config.pluginmanager
        # A worker of xdist has one too, but it goes nowhere.
        worker = hasattr(config, "workerinput")
        self._reporter = None if worker else manager.get_plugin("terminalreporter")
        self._capture = manager.get_plugin("capturemanager")
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
        with self._lock, self._capture_suspended():
            if self._live:
                self._reporter.write("\r\x1b[K")
            else:
                self._reporter.ensure_newline()
            width = shutil.get_terminal_size().columns - 1
            self._reporter.write(text[:width] if live else text + "\n", flush=True)
            self._live = live

    def _is_terminal(self) -> bool:
        return bool(self._reporter is not None and self._reporter.isatty)

    def _capture_suspended(self) -> AbstractContextManager[None]:
        if self._capture is None:
            return nullcontext()
        suspended: AbstractContextManager[None] = self._capture.global_and_fixture_disabled()
        return suspended
