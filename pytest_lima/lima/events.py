"""What the host agent says about a starting instance: ``ha.stdout.log``.

One JSON object a line: ``{"time": …, "status": {"running": …, "exiting": …, "errors": […],
"sshLocalPort": …}}``, every key left out when empty (Lima: pkg/hostagent/events/events.go).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_lima import realfiles

_LINE_LIMIT = 1024 * 1024
# Lima waits a minute for it, and goes on to look for it afterwards (Lima: pkg/hostagent).
_LATE_AGENT = "guest agent does not seem to be running"


@dataclass(frozen=True)
class HostStatus:
    """What has been said so far.

    Attributes:
        ssh_port: Port on 127.0.0.1 that leads to the guest's sshd; 0 until it is known. Known
            as soon as the VM's process runs: sshd needn't answer yet.
        running: Lima holds the instance for started.
        exiting: The host agent is ending, and the VM with it.
        errors: What Lima counts as errors.
    """

    ssh_port: int = 0
    running: bool = False
    exiting: bool = False
    errors: tuple[str, ...] = ()

    @property
    def lacks_agent_alone(self) -> bool:
        """Whether nothing is wrong but that the guest agent is late, as on a slow host.

        Lima counts that as a failed start.
        """
        return bool(self.running and self.errors) and all(
            error.startswith(_LATE_AGENT) for error in self.errors
        )


class EventLog:
    """Reads ``ha.stdout.log`` of one start as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._status = HostStatus()

    def read(self) -> HostStatus:
        """Take in what is new; lines that aren't whole yet wait for the next call."""
        try:
            data = realfiles.read_bytes(self._path, since=self._offset, most=_LINE_LIMIT)
        except FileNotFoundError:
            return self._status
        whole = data[: data.rfind(b"\n") + 1]
        if len(data) == _LINE_LIMIT and not whole:
            whole = data  # no event is that long; waiting for its end would stop us for good
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(line)
        return self._status

    def _take(self, line: bytes) -> None:
        before = self._status
        try:
            status = json.loads(line)["status"]
            self._status = HostStatus(
                ssh_port=int(status.get("sshLocalPort") or before.ssh_port),
                running=before.running or bool(status.get("running")),
                exiting=before.exiting or bool(status.get("exiting")),
                errors=tuple(map(str, status.get("errors") or before.errors)),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # a library's stray print; the events alone count
