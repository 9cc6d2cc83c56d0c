from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import pytest

from pytest_lima.guest import answers
from pytest_lima.guest.answers import NotAnsweringError, docker_date, ping


def says(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    return serve


def http(status: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_docker_answers_its_ping(engine) -> None:
    asked: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        asked.append(sock.recv(65536))
        sock.sendall(http("200 OK", "OK"))

    assert ping("docker", engine(serve)) == "OK"
    assert asked[0].startswith(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\n")


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0\xff" * 100, b"SSH-2.0-OpenSSH\r\n", http("500 Internal Server Error", "starting"),
     http("404 Not Found"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nO"[:20],
     b"HTTP/1.1 2" + b"0" * 5000 + b"\r\n\r\n", b"X: y\r\n" * 3000],
    ids=["closed", "bytes", "other", "500", "404", "cut", "number", "long"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["docker", "containerd"])
def test_anything_else_is_no_answer_yet(engine, kind: str, answer: bytes) -> None:
    path = engine(says(answer))
    with pytest.raises(NotAnsweringError, match=f"{kind} does not answer on {path}") as caught:
        ping(kind, path)
    assert caught.value.seen


@pytest.mark.parametrize("kind", ["docker", "containerd"])
def test_a_socket_that_takes_nobody_or_stays_silent(
    engine, monkeypatch, short_path, kind: str
) -> None:
    with pytest.raises(NotAnsweringError, match="FileNotFoundError"):
        ping(kind, short_path / "none")
    monkeypatch.setattr(answers, "_CALL_TIMEOUT", 0.2)
    released = threading.Event()
    with pytest.raises(NotAnsweringError, match="TimeoutError"):
        ping(kind, engine(lambda sock: bool(released.wait(10)) and None))
    released.set()


def containerd(
    message: bytes = b"\x0a\x061.7.24", status: str = "200", asked: list[str] | None = None
) -> Callable[[socket.socket], None]:
    """A gRPC server that answers each call with this message."""

    def serve(sock: socket.socket) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        while data := sock.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived) and asked is not None:
                    asked.append(dict(event.headers)[":path"])
                if isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(1, [(":status", status)])
                    frame = b"\0" + struct.pack(">I", len(message)) + message
                    connection.send_data(1, frame if message else b"", end_stream=False)
                    connection.send_headers(1, [("grpc-status", "0")], end_stream=True)
            sock.sendall(connection.data_to_send())

    return serve


def test_containerd_answers_with_its_version(engine) -> None:
    asked: list[str] = []
    assert ping("containerd", engine(containerd(asked=asked))) == "1.7.24"
    assert asked == ["/containerd.services.version.v1.Version/Version"]


@pytest.mark.parametrize("message", [b"", b"\x12\x03abc", b"\x0a", b"\x0a\x00"])
def test_a_containerd_without_a_version_does_not_answer_yet(engine, message: bytes) -> None:
    with pytest.raises(NotAnsweringError):
        ping("containerd", engine(containerd(message)))


def test_nor_one_with_headers_of_bytes(engine) -> None:
    """Frames by hand, as no server's library makes such (RFC 9113 and 7541)."""
    settings = b"\0\0\0\x04\0\0\0\0\0"
    header = b"\0\x07:status\x02\xff\xfe"
    headers = b"\0\0" + bytes([len(header)]) + b"\x01\x04\0\0\0\x01" + header
    with pytest.raises(NotAnsweringError):
        ping("containerd", engine(says(settings + headers)))


def test_bytes_of_a_version_are_made_readable(engine) -> None:
    assert ping("containerd", engine(containerd(b"\x0a\x02\xffx"))) == "\ufffdx"


@pytest.mark.parametrize(
    ("kind", "drip"),
    [
        ("containerd", b"\0\0\x08\x06\0\0\0\0\0" + b"pingpong"),  # a PING frame
        ("docker", b"X"),  # of a header without end
    ],
)
def test_an_engine_that_goes_on_for_ever_is_left_at_the_deadline(
    engine, monkeypatch, kind: str, drip: bytes
) -> None:
    monkeypatch.setattr(answers, "_CALL_TIMEOUT", 0.4)
    stop = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        if kind == "containerd":
            sock.sendall(b"\0\0\0\x04\0\0\0\0\0")  # its settings
        while not stop.wait(0.1):
            sock.sendall(drip)

    path = engine(serve)
    watchdog = threading.Timer(5, stop.set)
    watchdog.start()
    try:
        with pytest.raises(NotAnsweringError):
            ping(kind, path)
        assert not stop.is_set(), "it was left only because the engine gave up"
    finally:
        stop.set()
        watchdog.cancel()


@pytest.mark.parametrize(
    ("date", "seconds"),
    [("Thu, 26 Nov 2026 02:12:47 GMT", 1795659167), ("soon", None), ("", None),
     ("Thu, 99 Nov 9999999 02:12:47 GMT", None)],
)  # fmt: skip
def test_docker_dates_its_answers(engine, date: str, seconds: int | None) -> None:
    answer = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\n\r\nOK".encode()
    assert docker_date(engine(says(answer))) == seconds


def test_a_docker_without_dates(engine) -> None:
    assert docker_date(engine(says(http("200 OK", "OK")))) is None
