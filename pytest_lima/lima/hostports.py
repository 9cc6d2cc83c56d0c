"""Ports of this host that a lima.yaml names: only one VM at a time can have each."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_lima.errors import StartError

_LOOPBACK = "127.0.0.1"
_LONGEST_RANGE = 100  # of more, nobody means each


def of_ssh(filled: Mapping[str, Any]) -> int:
    """``ssh.localPort``; 0 where Lima takes a free one."""
    ssh = filled.get("ssh")
    return _number(ssh.get("localPort")) if isinstance(ssh, Mapping) else 0


def of_forwards(filled: Mapping[str, Any]) -> tuple[int, ...]:
    """The ports that ``portForwards`` bind by number."""
    rules = filled.get("portForwards")
    found = rules if isinstance(rules, list) else []
    return tuple(dict.fromkeys(port for rule in found for port in _bound(rule)))


def require_free(name: str, port: int) -> None:
    """Refuse to start a VM whose SSH port isn't free.

    Raises:
        StartError: It isn't.
    """
    if port and (problem := taken([port]).get(port)):
        raise StartError(
            f"port {port} of this host, which {name} is to have for SSH, can't be had",
            seen=problem,
            remedy="leave ssh.localPort out: each VM gets a free port, which lima.ssh_port tells",
        )


def taken(ports: Sequence[int]) -> dict[int, str]:
    """Those that nobody can listen on now, and why."""
    found = {}
    for port in ports:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((_LOOPBACK, port))
                listener.listen(1)
            except (OSError, OverflowError) as error:
                found[port] = str(error)
    return found


def _bound(rule: object) -> Iterator[int]:
    if not isinstance(rule, Mapping) or rule.get("ignore") or rule.get("hostSocket"):
        return
    if port := _number(rule.get("hostPort") or rule.get("guestPort")):
        yield port
    ends = rule.get("hostPortRange") or rule.get("guestPortRange")
    if isinstance(ends, list) and len(ends) == 2:
        first, last = (_number(end) for end in ends)
        if 0 < first <= last < first + _LONGEST_RANGE:
            yield from range(first, last + 1)


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isdecimal() else 0
