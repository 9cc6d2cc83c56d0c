"""A guest that is kept, and one that wakes up from its memory under another name.

What is done in the guest is in ``guest/waker.py``.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lima.errors import CommandError, LimaError, StartError
from pytest_lima.guest import commands, waker
from pytest_lima.guest.ssh import Connection

# Where the guest waits to be woken up; to be forwarded to this host.
SOCKET = waker.SOCKET
_TIMEOUT = 60.0
_LONGEST = 65536
# Those of RHEL 8 and its kin have one for the system's own use alone, as cloud-init is.
_PYTHON = "for p in python3 /usr/libexec/platform-python; do command -v $p && break; done"


class NotKeptError(LimaError):
    """A guest whose memory can't be kept, now or later."""


@dataclass(frozen=True)
class Kept:
    """What is known of a guest whose memory is kept.

    Attributes:
        token: Lies in its memory and on its disk, and nowhere else.
        hostname: Its own.
    """

    token: str
    hostname: str


@contextmanager
def keeping(connection: Connection, hostname: str) -> Iterator[Kept]:
    """Have the guest's memory and disk ready to be kept inside; they are as before afterwards.

    Raises:
        NotKeptError: The guest can't be woken up, as it has no Python, for one.
        ConnectionLostError: The connection broke.
    """
    kept = Kept(secrets.token_hex(16), hostname)
    pid = _leave_waker(connection, kept)
    try:
        yield kept
    finally:
        ran = commands.run(connection, ["kill", pid], user="root", check=False, timeout=_TIMEOUT)
        if not ran.ok:
            raise LimaError("the guest's waker does not end", ran=ran.command, seen=ran.stderr)


def wake(path: Path, kept: Kept, hostname: str, iid: str = "") -> float:
    """Make a guest that has just woken up one of its own, and prove that it is the kept one.

    Its clock is set, its random numbers are its own, and so are host name and machine id if
    ``hostname`` isn't the kept one's.

    Args:
        path: Its forwarded socket.
        kept: What it was when it was kept.
        hostname: What it is to be.
        iid: Lima's id of this start, which Lima waits for in the guest; empty for none.

    Returns:
        Seconds that its clock seemed to be ahead then, the way back counted as nothing.

    Raises:
        StartError: It isn't the kept guest, or it can't be made one of its own.
    """
    wishes = {
        "seed": secrets.token_hex(32),
        "iid": iid,
        "host": None if hostname == kept.hostname else hostname,
        "machine": secrets.token_hex(16),
        "old": kept.hostname,
    }
    facts = _asked(path, wishes)
    problems = [
        problem
        for wrong, problem in (
            ("problem" in facts, str(facts.get("problem"))),
            (facts.get("memory") != kept.token, "its memory is not the kept one"),
            (facts.get("disk") != kept.token, "its disk is not the kept one"),
        )
        if wrong
    ]
    if problems:
        raise StartError("the guest did not wake up as it should", seen="; ".join(problems[:2]))
    told = facts.get("time")
    return told - time.time() if isinstance(told, float) else math.inf


def _leave_waker(connection: Connection, kept: Kept) -> str:
    """Leave the process in the guest that will wake it up; its pid."""
    program = importlib.resources.files("pytest_lima.guest").joinpath("waker.py").read_text()
    line = f'python=$({_PYTHON}) && exec "$python" -I -S - "" {kept.token}'
    try:
        said = commands.run(connection, line, user="root", input=program, timeout=_TIMEOUT)
    except CommandError as error:
        raise NotKeptError("the guest can't be woken up again", ran="python3 in the guest",
                           seen=error.result.stderr.strip() or "it has no Python 3",
                           ) from error  # fmt: skip
    pid = said.stdout.strip()
    if pid.isdecimal():
        return pid
    raise NotKeptError("the guest can't be woken up again", ran="python3 in the guest", seen=pid)


def _asked(path: Path, wishes: dict[str, Any]) -> dict[str, Any]:
    """What the guest answers; it is asked once, as it does what it is asked."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT)
            sock.connect(str(path))
            sock.sendall(json.dumps({"now": time.time(), **wishes}).encode() + b"\n")
            with sock.makefile("rb") as answer:
                line = answer.readline(_LONGEST)
        facts = json.loads(line)
    except (OSError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if isinstance(facts, dict):
            return facts
        problem = str(facts)[:200]
    raise StartError("the guest did not wake up", ran=f"its waker, over {path}", seen=problem)
