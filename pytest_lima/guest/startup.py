"""A line for a login shell, and the sign that it began.

sshd has every line run by the user's login shell, behind its startup files (`~/.bashrc`, for
one). These may print, read the input, redirect the outputs, set traps, define an `echo` of their
own, end the shell, or be another shell for good. So a line begins with a sign, a word made up for
it alone, on both outputs, and waits for our answer: what comes before the sign is not of the line,
and without the answer nothing of it runs.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.guest import channels
from pytest_lima.guest.output import exit_status, outputs

if TYPE_CHECKING:
    import paramiko

# bash and zsh have functions come before all builtins, other shells not before those used here.
# As two expansions: an alias can't get at it, and no field is split.
BUILTIN = "${BASH_VERSION:+builtin} ${ZSH_VERSION:+builtin}"
# The same, shorter. Traps would print into the line's output, and so would a trace.
_CLEAN = (
    "pl=${BASH_VERSION:+builtin}${ZSH_VERSION:+builtin}; { $pl set +xv; $pl trap - EXIT "
    "${BASH_VERSION:+DEBUG} ${BASH_VERSION:+ERR} ${BASH_VERSION:+RETURN}; } 2>/dev/null"
)
_AWAIT_GO = "while $pl read -r pl_go || $pl exit 255; do case $pl_go in %s) $pl break;; esac; done"
# An output that is a file or /dev/null isn't ours: sshd's are pipes or sockets.
_IS_ELSEWHERE = (
    "{ $pl test -f /dev/fd/%d || $pl test -c /dev/fd/%d; } && ! $pl test -t %d && $pl exit 255"
)
# For startup files that read a line, and another shell that stands in the login shell's place and
# reads its commands from the input: it ends, where it would wait for more for ever.
_PROD = b"exit 253\n"
_PROD_INTERVAL = 1.0
# The sign comes on both outputs at once; after this time on one alone it won't on the other.
_OTHER_OUTPUT = 5.0
_KEPT = 64 * 1024
_REFUSED = 1  # what sudo exits with

_SEE = "~/.bashrc, /etc/profile.d, …"


class NotBegunError(LimaError):
    """The login shell never came to the line that was given to it."""


class NotBegunInTimeError(TimeoutError):
    """The login shell didn't come to the line in time.

    Attributes:
        said: What it had printed until then.
    """

    def __init__(self, said: str) -> None:
        super().__init__("the login shell has not begun in time")
        self.said = said


def new_mark() -> str:
    """What no startup file can know."""
    return secrets.token_bytes(8).hex()


def line(script: str, mark: str, *, user: str | None = None) -> str:
    """The line that says when it begins with ``script``; its input is what follows our answer.

    Args:
        script: For the login shell, or for one of ``user``.
        mark: Made up for this line alone.
        user: Who is to run it, by way of sudo.
    """
    ours = [_IS_ELSEWHERE % (number, number, number) for number in (1, 2)]
    inner = "\n".join(
        [_CLEAN, *ours, _sign(mark), _AWAIT_GO % mark, f"{BUILTIN} unset pl pl_go", script]
    )
    if user is None:
        return inner
    sudo = f'sudo -n -H -u {shlex.quote(user)} -- "${{SHELL:-/bin/sh}}" -c {shlex.quote(inner)}'
    return "\n".join([_CLEAN, _sign(f"{mark}-sudo"), f"$pl exec {sudo}"])


def _sign(mark: str) -> str:
    said = f'$pl echo "pytest-lima-{mark}=$$:${{BASH_VERSINFO-}}:${{SHELLOPTS-}}"'
    return f"{said} && {said} >&2 || $pl exit 255"


class Start:
    """The beginning of a line on a channel, and what is known of it.

    Attributes:
        pid: In the guest, of the shell that runs it, once that is known.
        bash: Its major version where it is a bash, and not in POSIX mode; else 0.
    """

    def __init__(self, channel: paramiko.Channel, mark: str) -> None:
        self.pid: int | None = None
        self.bash = 0
        self._channel = channel
        self._mark = mark
        self._sign = re.compile(rb"pytest-lima-%s=(\d+):(\d*):(\S*)\n" % mark.encode())
        self._sudo = re.compile(rb"pytest-lima-%s-sudo=.*\n" % mark.encode())
        self._said = {"stdout": b"", "stderr": b""}
        self._begun: set[str] = set()

    def begin(self, deadline: float) -> None:
        """Return when the line has begun; it gets its input from then on.

        Where sudo refused, it has ended instead, and sudo speaks in its place.

        Raises:
            NotBegunError: The shell has ended, or an output isn't to be had.
            NotBegunInTimeError: The deadline, on ``realtime.monotonic``'s clock, passed before.
            ConnectionLostError: The connection ended before.
        """
        half = float("inf")
        while not self._has_begun:
            self._prod()
            until = min(deadline, half, realtime.monotonic() + _PROD_INTERVAL)
            if self._listen(until):
                self._ended(deadline)
                return
            if self._begun:
                half = min(half, realtime.monotonic() + _OTHER_OUTPUT)
            if realtime.monotonic() >= deadline and not self._has_begun:
                raise NotBegunInTimeError(self._words())
            if realtime.monotonic() >= half and not self._has_begun:
                raise self._redirected()
        self._send(self._mark.encode() + b"\n")

    def outputs(self, deadline: float) -> Iterator[tuple[str, bytes]]:
        """What the line prints, as ``output.outputs`` tells it."""
        for name in self._said:
            while said := self.early(_KEPT, name):
                yield name, said
        yield from outputs(self._channel, deadline)

    def early(self, size: int, name: str) -> bytes:
        """What of an output came together with the sign, at most ``size`` bytes of it."""
        said = self._said[name]
        self._said[name] = said[size:]
        return said[:size]

    @property
    def _has_begun(self) -> bool:
        return len(self._begun) == len(self._said)

    def _listen(self, until: float) -> bool:
        """Take in what comes until the line has begun, or a time; whether the shell has ended."""
        with suppress(TimeoutError):
            for name, data in outputs(self._channel, until):
                self._take(name, data)
                if self._has_begun:
                    return False
            return not self._has_begun
        return False

    def _take(self, name: str, data: bytes) -> None:
        said = self._said[name] + data
        if name not in self._begun and (match := self._sign.search(said)):
            self._begun.add(name)
            self.pid = int(match[1])
            is_posix = b"posix" in match[3].split(b":")
            self.bash = 0 if is_posix or not match[2] else int(match[2])
            said = said[match.end() :]
        self._said[name] = said if name in self._begun else said[-_KEPT:]

    def _ended(self, deadline: float) -> None:
        """The shell has ended without the sign on both outputs."""
        status = exit_status(self._channel, deadline)
        after_sudo = {name: self._sudo.search(said) for name, said in self._said.items()}
        if status == _REFUSED and not self._begun and all(after_sudo.values()):
            for name, match in after_sudo.items():
                self._said[name] = self._said[name][match.end() if match else 0 :]
            return
        if self._begun:
            raise self._redirected()
        raise NotBegunError(
            "the command did not begin: the login shell ended first",
            seen=self._words() or f"exit status {status}, and no output",
            remedy=f"see the user's startup files in the guest ({_SEE}), which may not end the "
            "shell, replace it or redirect its outputs; and that it is one like sh",
        )

    def _redirected(self) -> NotBegunError:
        missing = " and ".join(name for name in self._said if name not in self._begun)
        return NotBegunError(
            f"the command's {missing} is not to be had: the login shell writes it elsewhere",
            seen=self._words() or "nothing on it",
            remedy=f"see the user's startup files in the guest ({_SEE}) for a redirection",
        )

    def _words(self) -> str:
        """What was printed that isn't the line's."""
        said = (text for name, text in self._said.items() if name not in self._begun)
        words = b"\n".join(said).decode(errors="replace")
        return "\n".join(row for row in words.splitlines() if self._mark not in row)

    def _prod(self) -> None:
        if not self._begun:
            self._send(_PROD)

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # a shell that has ended, which its outputs tell; or doesn't read
            channels.send(self._channel, data, realtime.monotonic() + _PROD_INTERVAL)
