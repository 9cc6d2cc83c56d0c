"""A guest that is kept, and one that wakes up from its memory under another name.

What is done in the guest is in ``guest/waker.py``.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lima import realtime
from pytest_lima.errors import InstanceDiedError, LimaError, StartError
from pytest_lima.guest import commands, waker
from pytest_lima.guest.calls import CallSocket
from pytest_lima.guest.ssh import Connection, NotYetError
from pytest_lima.lima.cidata import StartData

_TIMEOUT = 60.0
_END_TIMEOUT = 20.0
_LONGEST = 65536
_SEE_CONSOLE = "see its console in the log; `pytest-lima prune --golden` removes what is kept"
# RHEL 8 and its kin have one for the system's own use alone, which cloud-init is.
_PYTHON = "for p in python3 /usr/libexec/platform-python; do command -v $p && break; done"


class NotKeptError(LimaError):
    """No guest of this kind can be kept by its memory."""


class NotItselfError(StartError):
    """A guest that woke up isn't the one that was kept, or can't be made one of its own."""


@dataclass(frozen=True)
class Kept:
    """What is known of a guest whose memory is kept.

    Attributes:
        token: Lies in its memory and on its disk, and nowhere else.
        hostname: Its own.
    """

    token: str
    hostname: str

    @property
    def socket(self) -> str:
        """Where the guest waits to be woken up; to be forwarded to this host."""
        return waker.socket_of(self.token)


@contextmanager
def keeping(connection: Connection, hostname: str) -> Iterator[Kept]:
    """Have the guest's memory and disk ready to be kept inside; they are as before afterwards.

    Raises:
        NotKeptError: The guest can't be woken up, as it has no Python, for one.
        LimaError: It can't be kept now.
    """
    kept = Kept(secrets.token_hex(16), hostname)
    pid = _leave_waker(connection, kept)
    try:
        yield kept
    except InstanceDiedError:
        raise
    except BaseException:
        with suppress(LimaError):  # what went wrong says more; it ends by itself too
            _end_waker(connection, pid)
        raise
    _end_waker(connection, pid)


def wake(path: Path, kept: Kept, hostname: str, start: StartData, timeout: float) -> float:
    """Make a guest that has just woken up one of its own, and prove that it is the kept one.

    Its clock is set, its random numbers are its own, and so are host name and machine id if
    ``hostname`` isn't the kept one's. Its DNS leads to the host agent of this start.

    Args:
        path: Its forwarded socket.
        kept: What it was when it was kept.
        hostname: What it is to be.
        start: What Lima would have told it if it had booted.
        timeout: Seconds for all of it.

    Returns:
        Seconds that its clock seemed to be ahead then, the way back counted as nothing.

    Raises:
        NotItselfError: It isn't the kept guest, or it can't be made one of its own.
        StartError: It doesn't answer.
        NotYetError: Nothing listens there yet; it was asked for nothing.
    """
    wishes = {
        "seed": secrets.token_hex(32),
        "iid": start.instance_id,
        "nat": start.nat_rules,
        "host": None if hostname == kept.hostname else hostname,
        "machine": secrets.token_hex(16),
        "old": kept.hostname,
    }
    facts = _asked(path, wishes, timeout)
    if problem := _problem(facts, kept):
        raise NotItselfError(
            "the guest did not wake up as it should", seen=problem, remedy=_SEE_CONSOLE
        )
    told = facts.get("time")
    if isinstance(told, float) and math.isfinite(told):
        return told - realtime.now()
    return math.inf


def _problem(facts: dict[str, Any], kept: Kept) -> str:
    """What speaks against its being the kept guest; empty if nothing does."""
    if "problem" in facts:
        return str(facts["problem"])[:200]
    parts = [part for part in ("memory", "disk") if facts.get(part) != kept.token]
    return "; ".join(f"its {part} is not the kept one" for part in parts)


def _leave_waker(connection: Connection, kept: Kept) -> str:
    """Leave the process in the guest that will wake it up; its pid."""
    program = importlib.resources.files("pytest_lima.guest").joinpath("waker.py").read_text("utf-8")
    none = f'{{ echo "it has no Python 3" >&2; exit {waker.UNFIT}; }}'
    line = f'python=$({_PYTHON}) || {none}; exec "$python" -I -S - "" {kept.token}'
    ran = commands.run(connection, line, user="root", input=program, check=False, timeout=_TIMEOUT)
    pid = ran.stdout.strip()
    if ran.ok and pid.isdecimal():
        return pid
    kind = NotKeptError if ran.returncode == waker.UNFIT else LimaError
    said = ran.stderr.strip() or pid or f"exit status {ran.returncode}"
    seen = "\n".join(said.splitlines()[-3:])
    raise kind("the guest's memory can't be kept", ran="Python 3 in the guest", seen=seen,
               remedy="mend that in the template, or do without, with --lima-start=cold",
               )  # fmt: skip


def _end_waker(connection: Connection, pid: str) -> None:
    """End the process in the guest that was kept, which runs on."""
    ran = commands.run(connection, ["kill", pid], user="root", check=False, timeout=_END_TIMEOUT)
    if not ran.ok:
        raise LimaError(
            "what should wake the guest up had ended before it was kept",
            ran=ran.command,
            seen=ran.stderr.strip(),
            remedy="the next start tries again; on a slow host, take --lima-start=cold",
        )


def _asked(path: Path, wishes: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What the guest answers; it is asked once, as it does what it is asked."""
    try:
        with CallSocket(timeout) as sock:
            sock.connect(str(path))
            with sock.makefile("rb") as answer:
                said = answer.readline(_LONGEST)
                if said == b"awake\n":
                    sock.sendall(json.dumps({"now": realtime.now(), **wishes}).encode() + b"\n")
                    said = answer.readline(_LONGEST)
        facts = json.loads(said) if said else "it hung up without a word"
    except ConnectionRefusedError as error:
        # ssh has made the socket, and listens a moment later.
        raise NotYetError("the guest can't be woken up yet", seen=str(error)) from error
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if isinstance(facts, dict):
            return facts
        problem = str(facts)[:200]
    raise StartError("the guest did not wake up", ran=f"its waker, over {path}", seen=problem,
                     remedy=_SEE_CONSOLE)  # fmt: skip
