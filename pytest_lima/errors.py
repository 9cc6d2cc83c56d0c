"""Every error pytest-lima raises.

One root, so that ``except LimaError`` catches whatever the engine reports:

    LimaError
    ├── LimactlMissingError      no limactl to run
    ├── LimactlVersionError      limactl is too old
    ├── HostError                this machine can't run the VM (root, accelerator, path length)
    ├── TemplateError            a template, option or marker value that can't be used
    ├── StartError               limactl could not create or start the instance
    │   └── AcceleratorError     its accelerator can't run it
    ├── ProvisionError           the VM is up, but cloud-init or a provision script failed
    ├── ReadyTimeoutError        the VM was not ready before the deadline
    ├── ConnectionLostError      SSH to the guest can't be had any more
    ├── HostKeyError             the guest's SSH host key is not the pinned one
    ├── CommandError             a command in the guest returned non-zero
    ├── CommandTimeoutError      a command in the guest did not end in time
    ├── WaitTimeoutError         a condition in the guest did not come true in time
    ├── InstanceDiedError        the VM or its host agent is gone
    └── CleanupError             something could not be deleted

A failed session fixture repeats its error for each test, so an error is five lines at
most: what happened, what was run, what was seen, what to do, and the file with the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_lima.guest.commands import CommandResult

_SEEN_LIMIT = 600
_KILLED = 128 + 9


class LimaError(Exception):
    """Root of the errors; its text is for the person reading a CI log.

    Attributes:
        what: What happened, one line.
        ran: The command or call that was made.
        seen: What was observed, shortened to one line of 600 characters.
        remedy: What the reader can do about it.
        log: The file that holds the full evidence.
    """

    def __init__(
        self,
        what: str,
        *,
        ran: str | None = None,
        seen: str | None = None,
        remedy: str | None = None,
        log: Path | str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.ran = ran
        self.seen = seen
        self.remedy = remedy
        self.log = None if log is None else str(log)

    def __str__(self) -> str:
        """The five lines."""
        rows = (
            ("ran", self.ran),
            ("seen", self.seen),
            ("do", self.remedy),
            ("log", self.log),
        )
        details = [f"  {label}: {_one_line(text)}" for label, text in rows if text]
        return "\n".join([_one_line(self.what), *details])

    def __reduce__(self) -> tuple[object, ...]:
        """Keep every field when an error crosses a process boundary (xdist)."""
        return (_rebuild, (type(self), self.__dict__.copy()))


class LimactlMissingError(LimaError):
    """There is no limactl to run."""


class LimactlVersionError(LimaError):
    """The limactl found is older than pytest-lima supports."""


class HostError(LimaError):
    """This machine can't run the VM as asked."""


class TemplateError(LimaError):
    """A template, option or marker value can't be used."""


class StartError(LimaError):
    """Limactl could not create or start the instance."""


class AcceleratorError(StartError):
    """The accelerator can't run this VM, although it ran a test guest."""


class ProvisionError(LimaError):
    """The VM is up, but cloud-init or a provision script in it failed.

    Lima reports READY after a failed provision script (its boot.sh writes
    ``/run/lima-boot-done`` whatever the scripts returned); pytest-lima does not.
    """


class ReadyTimeoutError(LimaError):
    """The VM was not ready before the deadline."""


class ConnectionLostError(LimaError):
    """SSH to the guest can't be had any more."""


class HostKeyError(LimaError):
    """The guest's SSH host key is not the one that was pinned; nothing was sent."""


class CommandError(LimaError):
    """A command in the guest returned non-zero.

    Attributes:
        result: The finished command, with its whole output.
    """

    def __init__(self, result: CommandResult) -> None:
        super().__init__(
            f"the command returned {result.returncode} after {result.duration:.1f} s",
            ran=result.command,
            seen=_tail(result.stderr) or _tail(result.stdout) or "no output",
            remedy="it was killed; if by the guest's OOM killer, which its console tells, the VM "
            "needs more memory"
            if result.returncode == _KILLED
            else None,
        )
        self.result = result


class CommandTimeoutError(LimaError):
    """A command in the guest did not end in time; its process group was killed.

    Attributes:
        stdout: What the command had printed until then.
        stderr: The same for standard error.
    """

    def __init__(
        self,
        command: str,
        timeout: float,
        *,
        stdout: str = "",
        stderr: str = "",
        killed: bool,
        startup: str | None = None,
    ) -> None:
        """``startup`` is what the login shell had printed where it never came to the command."""
        what = f"the command did not end within {timeout:g} s"
        remedy = "raise timeout= if it needs longer"
        if startup is not None:
            what += ": the login shell had not begun it"
            remedy += (
                ", and see what the user's startup files in the guest wait for (~/.bashrc, "
                "/etc/profile.d and the like); it does not begin any more"
            )
        elif not killed:
            remedy = "its process group could not be killed and may still run in the guest"
        super().__init__(
            what,
            ran=command,
            seen=_tail(startup or stderr) or _tail(stdout) or "no output",
            remedy=remedy,
        )
        self.stdout = stdout
        self.stderr = stderr


class WaitTimeoutError(LimaError):
    """A condition in the guest did not come true in time."""


class InstanceDiedError(LimaError):
    """The VM or its host agent is gone."""


class CleanupError(LimaError):
    """Something of ours could not be deleted."""


def _one_line(text: str) -> str:
    """Fold ``text`` into one printable line, keeping its end, where errors usually stand."""
    folded = " | ".join(part.strip() for part in text.splitlines() if part.strip())
    clean = "".join(char if char.isprintable() else "?" for char in folded)
    return clean if len(clean) <= _SEEN_LIMIT else "…" + clean[-_SEEN_LIMIT:]


def _tail(text: str, lines: int = 5) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _rebuild(kind: type[LimaError], state: dict[str, object]) -> LimaError:
    error = kind.__new__(kind)
    error.args = (state["what"],)
    error.__dict__.update(state)
    return error
