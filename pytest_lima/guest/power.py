"""Asking a guest to reboot, seeing that it did, and how long to wait for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pytest_lima.errors import CommandError, ConnectionLostError, ReadyTimeoutError
from pytest_lima.guest.commands import run
from pytest_lima.guest.ssh import Connection

# How much longer than its cold boot a reboot may take. It has less to do, but the host may have
# more by then.
_TIMES = 3.0
_SHORTEST = 60.0
_UNKNOWN = 120.0  # without emulation


@dataclass(frozen=True)
class Patience:
    """How long a reboot is waited for.

    Attributes:
        seconds: So long.
        why: A clause that says where they are from.
    """

    seconds: float
    why: str

    @contextmanager
    def explained(self, name: str) -> Iterator[None]:
        """Say of a wait that was too long that it was a reboot's, and how to wait longer.

        Raises:
            ReadyTimeoutError: The one that was raised inside, in other words.
        """
        try:
            yield
        except ReadyTimeoutError as error:
            raise ReadyTimeoutError(
                f"{name} is not back {self.seconds:.0f} s after it was asked to reboot",
                ran="reboot()",
                seen=f"{error.what}; {error.seen}",
                remedy=f"these seconds are {self.why}; if the guest only is slow, give it more "
                "with reboot(timeout=…)",
                log=error.log,
            ) from error


def patience(asked: float | None, cold: float | None, slowness: float, most: float) -> Patience:
    """How long to wait for a reboot.

    Args:
        asked: Seconds that the test's author has chosen.
        cold: Those that the guest's cold boot took, if known.
        slowness: How much longer everything takes with this accelerator.
        most: Those that a cold boot may take.
    """
    if asked is not None:
        return Patience(asked, "those of reboot(timeout=…)")
    if cold is None:
        seconds, why = _UNKNOWN * slowness, "for a guest whose cold boot was not seen"
    else:
        seconds = max(_SHORTEST, _TIMES * cold)
        why = f"{_TIMES:.0f} times the {cold:.0f} s of its cold boot, and {_SHORTEST:.0f} at least"
    if seconds > most:
        return Patience(most, "all that --lima-timeout and --lima-timeout-factor give a boot")
    return Patience(seconds, why)


def boot_id(connection: Connection) -> str:
    """What differs between two boots of a guest."""
    return run(connection, "cat /proc/sys/kernel/random/boot_id").stdout.strip()


def reboot(connection: Connection) -> None:
    """Returns when the guest has taken it; the connection may end while it answers.

    Raises:
        CommandError: It refused.
    """
    try:
        result = run(connection, "systemctl reboot || reboot", user="root", check=False)
        if 0 < result.returncode <= 128:  # above, the guest's end has ended the shell too
            raise CommandError(result)
    except ConnectionLostError:
        pass
    finally:
        connection.close()
