"""docker and containerd in the guest: as much of them as makes them count as answering."""

from __future__ import annotations

import contextlib
import email.utils
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakelima.machine import Machine

_VERSION_CALL = "/containerd.services.version.v1.Version/Version"
_VERSION = b"1.7.24"
_DOCKER_ANSWERS = {
    "/_ping": (b"OK", "text/plain"),
    "/version": (json.dumps({"Version": "26.1.5", "ApiVersion": "1.45"}).encode(),
                 "application/json"),
}  # fmt: skip

Serve = Callable[[socket.socket, "Machine"], None]


class Engines:
    """Starts an engine when systemctl was asked for its unit."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._listeners: dict[str, socket.socket] = {}

    def look(self) -> None:
        """To be called again and again."""
        if not self._machine.scenario["engines"]:
            return
        for unit, path, serve in (
            ("docker.service", "/run/docker.sock", _docker),
            ("containerd.service", "/run/containerd/containerd.sock", _containerd),
        ):
            wanted = self._machine.path(f"/run/fake/units/{unit}").exists()
            if wanted and unit not in self._listeners:
                self._listeners[unit] = self._listen(path, serve)
            elif not wanted and unit in self._listeners:
                self._listeners.pop(unit).close()
                self._machine.path(path).unlink(missing_ok=True)

    def close(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def _listen(self, path: str, serve: Serve) -> socket.socket:
        real = self._machine.path(path)
        real.parent.mkdir(exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(real))
        listener.listen()
        threading.Thread(target=_accept, args=(listener, serve, self._machine), daemon=True).start()
        return listener


def _accept(listener: socket.socket, serve: Serve, machine: Machine) -> None:
    def one(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            serve(sock, machine)

    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=one, args=(sock,), daemon=True).start()


def _docker(sock: socket.socket, machine: Machine) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65536)
        if not data:
            return
        head += data
    match = re.match(rb"GET (?:/v[\d.]+)?(/[\w]+) HTTP/1\.1\r\n", head)
    body, kind = _DOCKER_ANSWERS.get(match[1].decode() if match else "", (b"", ""))
    status = "200 OK" if kind else "404 Not Found"
    clock = time.time() + float(machine.path("/run/fake/clock").read_text())
    sock.sendall(
        f"HTTP/1.1 {status}\r\nDate: {email.utils.formatdate(int(clock), usegmt=True)}\r\n"
        f"Content-Type: {kind or 'text/plain'}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def _containerd(sock: socket.socket, _: Machine) -> None:
    import h2.config
    import h2.connection
    import h2.events

    config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    sock.sendall(connection.data_to_send())
    path = ""
    while data := sock.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers or [])[":path"]
            elif isinstance(event, h2.events.StreamEnded) and event.stream_id:
                _answer(connection, event.stream_id, path)
        sock.sendall(connection.data_to_send())


def _answer(connection, stream: int, path: str) -> None:  # type: ignore[no-untyped-def]
    headers = [(":status", "200"), ("content-type", "application/grpc")]
    connection.send_headers(stream, headers)
    if path == _VERSION_CALL:
        message = b"\x0a" + bytes([len(_VERSION)]) + _VERSION
        connection.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
    status = "0" if path == _VERSION_CALL else "12"  # 12: not implemented
    connection.send_headers(stream, [("grpc-status", status)], end_stream=True)
