"""Asking an engine behind a forwarded socket for an answer; the one owner of h2.

Such a socket accepts before anything listens in the guest, so an engine counts as ready when it
has answered a call.
"""

from __future__ import annotations

import email.utils
import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_lima.errors import LimaError
from pytest_lima.guest.calls import CallSocket
from pytest_lima.lima import engines

if TYPE_CHECKING:
    import h2.connection

T = TypeVar("T")

_CALL_TIMEOUT = 10.0
_CONTAINERD_VERSION = "/containerd.services.version.v1.Version/Version"
_GRPC_EMPTY = b"\0\0\0\0\0"  # not compressed, length 0: google.protobuf.Empty


class NotAnsweringError(LimaError):
    """An engine's socket doesn't answer; while it starts, that is no failure."""


def ping(engine: str, path: Path) -> str:
    """Ask the engine behind a forwarded socket something it must answer.

    Returns:
        What it said: ``OK`` for docker, its version for containerd.

    Raises:
        NotAnsweringError: It doesn't answer (yet).
    """
    ask = _containerd_version if engine == engines.CONTAINERD else _ping
    return _asked(engine, path, ask)


def docker_date(path: Path) -> float | None:
    """The time in a guest, to the second, as its Docker dates its answers (RFC 9110: Date).

    Returns:
        Seconds since the epoch; None where it dates none.

    Raises:
        NotAnsweringError: It doesn't answer.
    """
    answer = _asked(engines.DOCKER, path, lambda sock: _docker(sock).headers)
    try:
        return email.utils.parsedate_to_datetime(answer["Date"]).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _asked(engine: str, path: Path, ask: Callable[[CallSocket], T]) -> T:
    """What ``ask`` gets from an engine over a connection of its own."""
    try:
        with CallSocket(_CALL_TIMEOUT) as sock:
            sock.connect(str(path))
            if answer := ask(sock):
                return answer
            problem = "it closed the connection"
    except (OSError, http.client.HTTPException) as error:
        problem = f"{type(error).__name__}: {error}"
    raise NotAnsweringError(f"{engine} does not answer on {path}", seen=problem)


def _ping(sock: socket.socket) -> str:
    answer = _docker(sock)
    return answer.read(64).decode(errors="replace") if answer.status == 200 else ""


def _docker(sock: socket.socket) -> http.client.HTTPResponse:
    """The answer to Docker's ``GET /_ping``; podman answers it too."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = sock
    connection.request("GET", "/_ping")
    return connection.getresponse()


def _containerd_version(sock: socket.socket) -> str:
    """A gRPC call over HTTP/2; the answer's first field is the version."""
    import h2.config
    import h2.connection
    import h2.exceptions

    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    try:
        connection.initiate_connection()
        connection.send_headers(
            1,
            [(":method", "POST"), (":scheme", "http"), (":path", _CONTAINERD_VERSION),
             (":authority", "localhost"), ("content-type", "application/grpc"),
             ("te", "trailers")],
        )  # fmt: skip
        connection.send_data(1, _GRPC_EMPTY, end_stream=True)
        body = _grpc_body(connection, sock)
    except (h2.exceptions.H2Error, ValueError):  # a header that isn't UTF-8, for one
        return ""
    return _first_field(body[len(_GRPC_EMPTY) :])


def _grpc_body(connection: h2.connection.H2Connection, sock: socket.socket) -> bytes:
    """What the server sends on the one stream, until it ends it."""
    import h2.events

    body = bytearray()
    sock.sendall(connection.data_to_send())
    while data := sock.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data or b""
            elif isinstance(
                event,
                h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated,
            ):
                return bytes(body)
        sock.sendall(connection.data_to_send())
    return bytes(body)


def _first_field(message: bytes) -> str:
    """Field 1 of a protobuf message as text: tag 0x0a, a length below 128, the bytes."""
    if len(message) < 2 or message[0] != 0x0A:
        return ""
    return message[2 : 2 + message[1]].decode(errors="replace")
