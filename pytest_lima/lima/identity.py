"""Which process is which: the one owner of psutil.

A pid alone names nobody: it is used again, in containers within minutes. So a process is told
by pid and start time, and none is signalled before its command line was seen to be ours.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_lima import realfiles, realtime

_END_TIMEOUT = 5.0
_POLL = 0.01
# Why a living process can't be looked at: this one has too many open files, for one.
_NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True)
class Identity:
    """A process, told apart from later ones with the same pid.

    Attributes:
        pid: Its id.
        started: When it was started: clock ticks since boot on Linux, which no change of the
            clock moves; elsewhere seconds since the epoch.
        host: The boot of the host, and the pid namespace, in which the id counts.
    """

    pid: int
    started: float
    host: str

    @property
    def elsewhere(self) -> bool:
        """Whether it is in another container of this host, where pids tell us nothing."""
        here = this_host()
        return self.host != here and self.host.split()[:1] == here.split()[:1]

    def alive(self) -> bool:
        """Whether that very process still runs; a zombie doesn't.

        Raises:
            OSError: It can't be looked at now.
        """
        return self.host == this_host() and _start_time(self.pid) == self.started


def of(pid: int) -> Identity | None:
    """The process that has this pid now; None where there is none."""
    started = _start_time(pid) if pid > 0 else None
    return None if started is None else Identity(pid, started, this_host())


def this_process() -> Identity:
    """Who we are."""
    pid = realfiles.pid()
    return Identity(pid, _start_time(pid) or 0.0, this_host())


@cache
def this_host() -> str:
    """Where pids of ours count: another container of the same host is another place."""
    try:
        boot = realfiles.read_text(Path("/proc/sys/kernel/random/boot_id")).strip()
        return f"{boot} {realfiles.link_target(Path('/proc/self/ns/pid'))}"
    except OSError:
        # A Mac's name changes with the network that it is in.
        return _boot_session() or os.uname().nodename


def command_line(pid: int) -> tuple[str, ...]:
    """A process's arguments; empty where there is none, or it isn't for us to see."""
    import psutil

    try:
        return tuple(psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):
        return ()


def find(is_ours: Callable[[Sequence[str]], bool]) -> Iterator[Identity]:
    """The living processes whose command line ``is_ours`` takes; never this one."""
    import psutil

    for pid in psutil.pids():
        # First who it is, then what it runs: what is killed later is what was looked at.
        found = of(pid) if pid != realfiles.pid() else None
        argv = command_line(pid) if found is not None else ()
        if found is not None and argv and is_ours(argv):
            yield found


def kill(processes: Sequence[Identity]) -> list[Identity]:
    """SIGKILL, and wait for their ends; those that are still there after five seconds."""
    for process in processes:
        try:
            _kill(process)
        except (ProcessLookupError, PermissionError):
            pass  # gone by itself, or not ours; the wait tells which
    deadline = realtime.monotonic() + _END_TIMEOUT
    left = [process for process in processes if process.alive()]
    while left and realtime.monotonic() < deadline:
        realtime.sleep(_POLL)
        left = [process for process in left if process.alive()]
    return left


def free_memory() -> int:
    """MiB that new processes could have without swapping."""
    import psutil

    return int(psutil.virtual_memory().available) // (1024 * 1024)


def _kill(process: Identity) -> None:
    """SIGKILL for that very process: a number that was seen alive may be another's a moment later.

    Raises:
        ProcessLookupError: It is gone.
        PermissionError: It isn't ours.
    """
    if sys.platform == "linux":
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            raise
        except OSError:
            pass  # an old kernel, or no descriptor is free
        else:
            try:
                if process.alive():  # looked at with the handle held: it is the handle's process
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)
            return
    if process.alive():
        realfiles.kill(process.pid, signal.SIGKILL)


def _boot_session() -> str:
    """The id of this boot on macOS (``sysctl kern.bootsessionuuid``); empty elsewhere."""
    import ctypes

    value, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    try:
        sysctl = ctypes.CDLL(None).sysctlbyname
    except AttributeError:
        return ""
    failed = sysctl(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0)
    return "" if failed else value.value.decode(errors="replace")


def _start_time(pid: int) -> float | None:
    if os.uname().sysname == "Linux":
        return _start_ticks(pid)
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # What psutil tells processes apart by: create_time() moves when a Mac's clock is set.
        started: float | None = process._ident[1]  # type: ignore[attr-defined]  # noqa: SLF001
        return started
    except psutil.Error:
        return None


def _start_ticks(pid: int) -> float | None:
    """Fields 3 and 22 of /proc/PID/stat, counted behind the name, which may hold anything."""
    try:
        said = realfiles.read_text(Path(f"/proc/{pid}/stat"))
    except OSError as error:
        if error.errno in _NOT_NOW:
            raise  # it may well live
        return None
    fields = said.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else float(fields[19])
