"""Sockets to a VM, where a test has blocked all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket

from pytest_lima import realsockets
from pytest_lima.guest.calls import CallSocket
from pytest_lima.lima.vitals import agent_answers


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


@pytest.fixture(params=["all", "hosts", "replaced"])
def blocked(
    request: pytest.FixtureRequest, listener: object, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    if request.param == "all":
        pytest_socket.disable_socket()
    elif request.param == "hosts":
        pytest_socket.socket_allow_hosts(["192.0.2.1"])
    else:
        monkeypatch.setattr(socket, "socket", None)
        monkeypatch.setattr(socket, "create_connection", None)
    yield
    pytest_socket._remove_restrictions()


def test_a_port_is_reached(listener: socket.socket, blocked: object) -> None:
    with realsockets.connect(listener.getsockname()[1], 5) as sock:
        sock.sendall(b"hello")
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]
        with realsockets.RealSocket(fileno=descriptor) as peer:
            assert peer.recv(5) == b"hello"
            assert peer.getpeername() == sock.getsockname()


def test_unix_sockets_are_reached(short_path: Path, blocked: object) -> None:
    with realsockets.RealSocket(socket.AF_UNIX) as server:
        server.bind(str(short_path / "ha.sock"))
        server.listen()
        assert agent_answers(short_path)
        with CallSocket(5) as sock:
            sock.connect(str(short_path / "ha.sock"))


def test_nobody_there_leaves_nothing_open(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        realsockets.connect(port, 5)


def test_it_stands_in_for_a_moment(blocked: object) -> None:
    before = socket.socket
    with realsockets.in_place():
        one, other = socket.socketpair()
    one.close()
    other.close()
    assert socket.socket is before
