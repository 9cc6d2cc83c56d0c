"""The guest's SSH host keys, taken from its console and never from the network.

Lima accepts any host key. Any process of this host could answer on the forwarded port, so we
pin: the guest prints its public keys to the console, whose log lies in a folder that only
this user can write. cloud-init makes new keys at every ``limactl start`` (the instance id
changes), a reboot inside the guest keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_lima import realfiles
from pytest_lima.lima import logs

FIRST_CONNECTION = "the first connection"  # a source that isn't the console

_BEGIN = "-----BEGIN SSH HOST KEY KEYS-----"
_END = "-----END SSH HOST KEY KEYS-----"
_KEY = re.compile(r"\b(ssh-ed25519|ecdsa-sha2-nistp\d+|ssh-rsa)\s+([A-Za-z0-9+/]{60,}={0,2})")


@dataclass(frozen=True)
class HostKeys:
    """Pinned public keys.

    Attributes:
        keys: Base64 of each key by its type, such as ``ssh-ed25519``.
        source: Where they are from, for messages.
        lasting: Whether they stay when the guest reboots.
    """

    keys: Mapping[str, str]
    source: str
    lasting: bool = True

    def write_known_hosts(self, path: Path, alias: str) -> None:
        """Write them for OpenSSH, to be used with ``HostKeyAlias=alias``."""
        path.write_text("".join(f"{alias} {kind} {key}\n" for kind, key in self.keys.items()))
        path.chmod(0o600)


def from_console(instance_dir: Path, since: int = 0) -> HostKeys | None:
    """The keys in the console's log behind byte ``since``; None while there are none.

    The last block counts: within one log, which Lima empties at each start, all are of the
    same boot or a reboot of it.
    """
    log = logs.console(instance_dir)
    # Found from the end: a pattern would take its time on a guest that prints many beginnings.
    whole, _, _ = logs.read(log, since=since).rpartition(_END)
    _, _, block = whole.rpartition(_BEGIN) if _BEGIN in whole else ("", "", "")
    keys = found_in(block)
    return HostKeys(keys, f"the console log {log}") if keys else None


def found_in(text: str) -> dict[str, str]:
    """Base64 of each public key in a text, by its type."""
    return dict(_KEY.findall(text))


def from_known_hosts(path: Path) -> HostKeys:
    """The keys that another process has pinned.

    Raises:
        OSError: There is no such file.
    """
    rows = [line.split() for line in realfiles.read_text(path).splitlines()]
    return HostKeys({row[1]: row[2] for row in rows if len(row) == 3}, str(path))
