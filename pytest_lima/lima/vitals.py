"""Whether an instance still lives: its VM's process, its host agent, its accelerator, its kernel.

Asked before each command, and twice a second by a thread, so that what waits for a dead guest
learns of it within two seconds and not by its own timeout.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from pytest_lima import realfiles
from pytest_lima.errors import InstanceDiedError, LimaError
from pytest_lima.lima import causes, evidence, identity, logs
from pytest_lima.lima.identity import Identity
from pytest_lima.realsockets import RealSocket

_INTERVAL = 0.5
_ANSWER_TIMEOUT = 2.0
_SCAN_LIMIT = 256 * 1024
# How often the kernel's OOM killer has struck, in any control group; Linux has it from 4.13 on.
_COUNTERS = Path("/proc/vmstat")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class Vitals:
    """Of one start of one instance."""

    def __init__(self, folder: Path) -> None:
        """Begin with the processes that the pid files in an instance's folder name."""
        self._name = folder.name
        self._processes = {
            what: found
            for what, files in (("VM", ("qemu.pid", "vz.pid")), ("host agent", ("ha.pid",)))
            if (found := _process(folder, files)) is not None
        }
        self._console = logs.console(folder)
        self._scanned = logs.size(self._console)
        self._panic = ""
        self._agent_log = folder / logs.HOST_AGENT
        self._heard = 0
        self._stopped = ""
        self._oom_kills = _oom_kills()
        self._lock = threading.Lock()

    def cause_of_death(self) -> str | None:
        """Why the instance is dead; None while it lives."""
        for what, process in self._processes.items():
            if _is_gone(process):
                struck = _oom_kills() > self._oom_kills
                hint = "; this host's OOM killer has struck meanwhile" if struck else ""
                return f"the {what}'s process {process.pid} is gone{hint}"
        if "VM" not in self._processes:
            return "it has no process"
        if self._stopped:
            return f"QEMU has stopped it: {self._stopped.splitlines()[0]}"
        return self._panic or None

    def check(self, reason: LimaError | None = None) -> None:
        """Raise if it is dead, with what its console said last.

        Raises:
            InstanceDiedError: It is.
        """
        cause = self.cause_of_death()
        if cause is None:
            return
        raise InstanceDiedError(
            f"the VM {self._name} has died: {cause}",
            seen=logs.tail(self._console, 5) or "nothing on its console",
            remedy=causes.remedy(
                self._stopped,
                "look at its console for a panic, at the host's memory for an OOM kill; "
                "--lima-recreate=1 gives later tests a new VM",
            ),
            log=self._console,
        ) from reason

    def look(self) -> None:
        """Take in what the console says, and raise if it is dead; for who looks by himself.

        Raises:
            InstanceDiedError: It is.
        """
        self.look_at_console()
        self.check()

    def look_at_console(self) -> None:
        """Take in what it has printed since the last look, and what QEMU has said."""
        with self._lock:
            heard = logs.size(self._agent_log)
            if heard != self._heard:
                self._heard = heard
                found = evidence.accelerator_failure(self._agent_log.parent)
                self._stopped = found or self._stopped
            size = logs.size(self._console)
            if size < self._scanned:
                self._scanned = 0  # emptied by a new start
            if size == self._scanned:
                return
            try:
                # A little of the last look again, for what was cut in two.
                since = max(0, self._scanned - 80, size - _SCAN_LIMIT)
                said = realfiles.read_bytes(self._console, since=since, most=_SCAN_LIMIT + 80)
            except OSError:
                return
            self._scanned = size
            self._panic = logs.panic(said.decode(errors="replace")) or self._panic


class Watch:
    """Looks after an instance from a thread of its own, until it dies or ``end`` is called.

    Attributes:
        died: Set when it did.
    """

    def __init__(self, vitals: Vitals, on_death: Callable[[], None]) -> None:
        self.died = threading.Event()
        self._vitals = vitals
        self._on_death = on_death
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="pytest-lima-watch", daemon=True).start()

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self._vitals.look_at_console()
            if self._vitals.cause_of_death() is not None:
                self.died.set()
                self._on_death()
                return


def agent_answers(folder: Path) -> bool:
    """Whether an instance's host agent lives, also where its pid counts in another container."""
    try:
        with RealSocket(socket.AF_UNIX) as sock:
            sock.settimeout(_ANSWER_TIMEOUT)
            sock.connect(str(folder / "ha.sock"))
    except OSError:
        return False
    return True


def _is_gone(process: Identity) -> bool:
    """Whether it was seen to have ended."""
    try:
        return not process.alive()
    except OSError:
        return False  # this process has too many open files, for one: the next look tells


def _process(folder: Path, files: tuple[str, ...]) -> Identity | None:
    """The living process that one of the pid files names."""
    for name in files:
        try:
            found = identity.of(int(realfiles.read_text(folder / name)))
        except (OSError, ValueError):
            continue
        if found is not None:
            return found
    return None


def _oom_kills() -> int:
    try:
        found = _OOM_KILLS.search(realfiles.read_text(_COUNTERS))
    except OSError:
        return 0
    return int(found[1]) if found else 0
