"""Which host key a booting guest is trusted by, and the first login with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.guest import hostkeys
from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.ssh import Connection, connect

ON_CONSOLE = "SSH host keys on the console"

# cloud-init prints the keys about a second after Lima's marker; with none by then the image
# doesn't print any.
_GRACE = 15.0


def first_login(
    waiting: Waiting, address: Address, instance_dir: Path, lima_is_ready: Callable[[], bool]
) -> tuple[Connection, HostKeys]:
    """Log in with the keys from the console, as soon as both are there.

    Where the image prints none, the first key that is shown is pinned, and the source of the
    keys says so.

    Raises:
        HostKeyError: Something else answers in its place.
        ReadyTimeoutError: Not in time.
    """
    keys = waiting.until(ON_CONSOLE, _keys_or_none(instance_dir, lima_is_ready))
    if keys.keys:
        return waiting.until("SSH", lambda: connect(address, keys)), keys
    connection = waiting.until("SSH", lambda: connect(address, None))
    kind, key = connection.host_key.split()
    return connection, HostKeys({kind: key}, hostkeys.FIRST_CONNECTION)


def _keys_or_none(
    instance_dir: Path, lima_is_ready: Callable[[], bool]
) -> Callable[[], HostKeys | None]:
    """Look for the keys; an empty set of them when the image evidently prints none."""
    ready_since: list[float] = []

    def look() -> HostKeys | None:
        if not ready_since and lima_is_ready():
            ready_since.append(realtime.monotonic())
        keys = hostkeys.from_console(instance_dir)
        if keys is None and ready_since and realtime.monotonic() - ready_since[0] > _GRACE:
            return HostKeys({}, "nowhere")
        return keys

    return look
