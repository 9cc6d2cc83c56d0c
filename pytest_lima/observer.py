"""What the engine tells while it works; the plugin shows it, a library user may log it."""

from __future__ import annotations

import logging

_log = logging.getLogger("pytest_lima")


class Observer:
    """Gets every phase of a boot; this one logs. All calls come from the booting thread."""

    def phase(self, instance: str, phase: str) -> None:
        """A phase begins, such as ``booting`` or ``provisioning``."""
        _log.info("%s: %s", instance, phase)

    def tick(self, line: str) -> None:
        """Still in that phase; ``line`` is the last one of the guest's console."""

    def ready(self, instance: str, seconds: float) -> None:
        """The instance is ready, ``seconds`` after it was asked for."""
        _log.info("%s: ready after %.1f s", instance, seconds)

    def joined(self, instance: str, seconds: float) -> None:
        """An instance that another process made ready is used here too."""
        _log.info("%s: joined in %.1f s", instance, seconds)

    def failed(self, instance: str) -> None:
        """The instance won't be ready; an error follows."""
        _log.info("%s: failed", instance)

    def warn(self, message: str) -> None:
        """Something the user should know, though it goes on."""
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
