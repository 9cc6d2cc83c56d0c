"""What a command in the guest has come to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CommandResult:
    """A finished command.

    Attributes:
        command: The command line; a list is joined with shell quoting.
        returncode: Exit status, or 128 + N if signal N ended the command.
        stdout_bytes: Standard output.
        stderr_bytes: Standard error.
        duration: Seconds, measured on the host.
    """

    command: str
    returncode: int
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    duration: float

    @property
    def ok(self) -> bool:
        """Whether it returned 0."""
        return self.returncode == 0

    @property
    def stdout(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as UTF-8, undecodable bytes replaced."""
        return self.stderr_bytes.decode(errors="replace")
