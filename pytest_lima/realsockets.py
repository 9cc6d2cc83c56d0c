"""Sockets of our own, whatever a test makes of ``socket.socket``.

pytest-socket keeps tests from the network: it replaces ``socket.socket`` by a class that refuses,
and its ``connect`` by one that lets few hosts through. A VM is what the test asks for, by its
fixture, and 127.0.0.1 and sockets in its folder are the only ways to it. pytest imports this
module with the plugin, so before any of that.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


class RealSocket(socket.socket):
    """A socket with the methods that were there when pytest began."""

    connect = socket.socket.connect
    recv = socket.socket.recv
    recv_into = socket.socket.recv_into
    send = socket.socket.send
    sendall = socket.socket.sendall


def connect(port: int, timeout: float) -> RealSocket:
    """A connection to a port of 127.0.0.1, which keeps the time-out.

    Raises:
        OSError: Nobody answers there.
    """
    sock = RealSocket(socket.AF_INET)
    try:
        sock.settimeout(timeout)
        sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def in_place() -> Iterator[None]:
    """Have ``socket.socket`` be a real one, for a library that makes its sockets itself.

    It is one for the whole process: for as long as a connection takes, and no longer.
    """
    found = socket.socket
    socket.socket = RealSocket  # type: ignore[misc]
    try:
        yield
    finally:
        socket.socket = found  # type: ignore[misc]
