"""What the engine reports while it works. The plugin shows it; ``lima_instance`` logs it."""

from __future__ import annotations

import logging

_log = logging.getLogger("pytest_lima")


class Observer:
    """Gets every phase of a boot. This one logs. The booting thread makes all calls."""

    def phase(self, instance: str, phase: str) -> None:
        """A phase begins, such as ``booting`` or ``provisioning``."""
        _log.info("%s: %s", instance, phase)

    def tick(self, line: str) -> None:
        """The phase continues; ``line`` is the last line of the guest's console."""

    def ready(self, instance: str, seconds: float) -> None:
        """The instance is ready, ``seconds`` after it was asked for."""
        _log.info("%s: ready after %.1f s", instance, seconds)

    def joined(self, instance: str, seconds: float) -> None:
        """This process has joined an instance that another process made ready."""
        _log.info("%s: joined in %.1f s", instance, seconds)

    def failed(self, instance: str) -> None:
        """The instance did not become ready; an error follows."""
        _log.info("%s: failed", instance)

    def warn(self, message: str) -> None:
        """A warning to the user; the work continues."""
        _log.warning("%s", message)


class Relay(Observer):
    """Passes everything on to another."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def phase(self, instance: str, phase: str) -> None:
        """Pass it on."""
        self._observer.phase(instance, phase)

    def tick(self, line: str) -> None:
        """Pass it on."""
        self._observer.tick(line)

    def ready(self, instance: str, seconds: float) -> None:
        """Pass it on."""
        self._observer.ready(instance, seconds)

    def joined(self, instance: str, seconds: float) -> None:
        """Pass it on."""
        self._observer.joined(instance, seconds)

    def failed(self, instance: str) -> None:
        """Pass it on."""
        self._observer.failed(instance)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self._observer.warn(message)
