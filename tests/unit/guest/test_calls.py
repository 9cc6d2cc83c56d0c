from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lima.guest.calls import CallSocket


def drip(connection: socket.socket) -> None:
    """A byte every now and then, for as long as anybody listens."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("by_file", [True, False])
def test_its_time_is_for_the_whole_call(
    short_path: Path, serve: Callable[..., None], by_file: bool
) -> None:
    serve(short_path / "s.sock", drip)
    begun = time.monotonic()
    with CallSocket(0.5) as sock:
        sock.connect(str(short_path / "s.sock"))
        with pytest.raises(TimeoutError):
            if by_file:
                sock.makefile("rb").readline()
            while True:
                assert sock.recv(100)
    assert 0.4 < time.monotonic() - begun < 10
