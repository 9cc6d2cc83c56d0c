from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_lima.guest.calls import CallSocket


@pytest.fixture
def dripping(short_path: Path) -> Iterator[Path]:
    """Says a byte every now and then, for as long as anybody listens."""
    path, over = short_path / "s.sock", threading.Event()

    def drip() -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):  # nobody listens any more
            while not over.wait(0.05):
                peer.sendall(b"x")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=drip)
        thread.start()
        yield path
        over.set()
        thread.join()


@pytest.mark.parametrize("by_file", [True, False])
def test_its_time_is_for_the_whole_call(dripping: Path, by_file: bool) -> None:
    begun = time.monotonic()
    with CallSocket(0.5) as sock:
        sock.connect(str(dripping))
        with pytest.raises(TimeoutError):
            if by_file:
                sock.makefile("rb").readline()
            while True:
                assert sock.recv(100)
    assert 0.4 < time.monotonic() - begun < 10
