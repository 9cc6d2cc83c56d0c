"""Asking a guest to reboot, and seeing that it did."""

from __future__ import annotations

from pytest_lima.errors import CommandError, ConnectionLostError
from pytest_lima.guest.commands import run
from pytest_lima.guest.ssh import Connection


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
