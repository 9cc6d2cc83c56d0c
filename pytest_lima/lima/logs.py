"""Reading an instance's logs: bounded, and harmless to a terminal, as guests write them."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_lima import realfiles

_LIMIT = 256 * 1024

# The evidence in an instance's folder, in the order a reader wants it.
HOST_AGENT = "ha.stderr.log"
EVENTS = "ha.stdout.log"
# What had been printed before this VM's memory was kept, for one that was woken up from it.
KEPT_CONSOLE = "console.kept.log"
_CONSOLES = ("serial.log", "serialv.log", "serialp.log")
_PANIC = re.compile(r"Kernel panic - not syncing[^\r\n]*")


def console(instance_dir: Path) -> Path:
    """The console's log: QEMU's first serial port, vz's only one."""
    files = [instance_dir / name for name in _CONSOLES]
    return max(files, key=lambda file: -1 if (found := realfiles.size(file)) is None else found)


def console_text(instance_dir: Path) -> str:
    """What the guest has printed since it was booted, the last 256 KiB."""
    text = read(instance_dir / KEPT_CONSOLE) + read(console(instance_dir))
    return text[-_LIMIT:]


def clear(instance_dir: Path) -> None:
    """Remove what an earlier start has left: its events and host keys aren't the next one's."""
    for name in (EVENTS, HOST_AGENT, KEPT_CONSOLE, *_CONSOLES):
        (instance_dir / name).unlink(missing_ok=True)


def size(path: Path) -> int:
    """The bytes of a log so far."""
    return realfiles.size(path) or 0


def read(path: Path, limit: int = _LIMIT, since: int = 0) -> str:
    """The last ``limit`` bytes of a log from byte ``since``; empty where there is none."""
    try:
        data = realfiles.read_bytes(path, since=max(since, size(path) - limit), most=limit)
    except OSError:
        return ""
    return data.decode(errors="replace")


def panic(said: str) -> str:
    """What a kernel says when it gives up, in what a console has printed; empty if it doesn't."""
    found = _PANIC.search(said)
    return printable(found[0]) if found else ""


def tail(path: Path, lines: int = 20) -> str:
    """The last ``lines`` lines that aren't empty, printable."""
    return last(read(path), lines)


def last(text: str, lines: int = 20) -> str:
    """The last ``lines`` lines of a log's text that aren't empty, printable."""
    kept = [line for line in map(printable, text.splitlines()) if line]
    return "\n".join(kept[-lines:])


def printable(line: str) -> str:
    """A line without the control characters of a guest's console."""
    return "".join(char for char in line if char.isprintable() or char == "\t").strip()
