"""What the unit tests share: a clean environment, short folders, small executables."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakelima.fixtures import fake_lima as fake_lima

from pytest_lima.observer import Observer


class Recorder(Observer):
    """An observer that remembers, as one list in the order of the calls."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def phase(self, instance: str, phase: str) -> None:
        self.told.append(("phase", phase))

    def tick(self, line: str) -> None:
        self.told.append(("tick", line))

    def ready(self, instance: str, seconds: float) -> None:
        self.told.append(("ready", instance))

    def failed(self, instance: str) -> None:
        self.told.append(("failed", instance))

    def warn(self, message: str) -> None:
        self.told.append(("warn", message))

    def all(self, kind: str) -> list[str]:
        return [rest[0] for name, *rest in self.told if name == kind]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own options, Lima or proxies gets into a test."""
    for name in list(os.environ):
        if name.startswith(("PYTEST_LIMA_", "LIMA_", "QEMU_SYSTEM_")) or name == "SSH":
            monkeypatch.delenv(name)


@pytest.fixture
def observer() -> Recorder:
    return Recorder()


@pytest.fixture
def closed_again(fake_lima: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What ``lima_instance`` could not remove is, with its reaper, when the test is over."""
    from pytest_lima.ownership import library

    made = []
    make = library.Pool

    def noted(*args: Any) -> Any:
        made.append(make(*args))
        return made[-1]

    monkeypatch.setattr(library, "Pool", noted)
    yield
    for pool in made:
        pool.close()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder short enough for unix sockets; ``tmp_path`` isn't on macOS."""
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as folder:
        yield Path(folder).resolve()


@pytest.fixture
def serve() -> Iterator[Callable[[Path, Callable[[socket.socket], None]], None]]:
    """Has a thread listen on a Unix socket and hand each connection over, one after another."""
    with contextlib.ExitStack() as ended:

        def begin(path: Path, talk: Callable[[socket.socket], None]) -> None:
            listener = ended.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()

            def accept() -> None:
                while True:
                    try:
                        connection = listener.accept()[0]
                    except OSError:
                        return  # the test is over
                    # Whoever has left hears no answer.
                    with connection, contextlib.suppress(ConnectionError):
                        talk(connection)

            thread = threading.Thread(target=accept)
            thread.start()
            ended.callback(thread.join, 10)
            ended.callback(listener.shutdown, socket.SHUT_RDWR)

        yield begin


@pytest.fixture
def tool(tmp_path: Path) -> Callable[..., Path]:
    """Makes ``tmp_path/bin/NAME``, an executable with this ``sh`` script."""

    def make(name: str, script: str, shell: str = "/bin/sh") -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{shell}\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def tools_env(tmp_path: Path) -> dict[str, str]:
    """An environment in which the fake tools come first."""
    return {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}


def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], bool]:
    """Waits for a condition, ten seconds at most; whether it came true."""
    return _until


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process ends; one that only init has yet to collect has ended."""

    def ended(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return lambda pid: _until(lambda: ended(pid))


@pytest.fixture
def said() -> Callable[[Path, int], list[int]]:
    """The pids that a script writes into a file, as soon as there are that many."""

    def read(path: Path, count: int = 1) -> list[int]:
        assert _until(lambda: path.exists() and path.read_text().count("\n") >= count)
        return [int(line) for line in path.read_text().split()]

    return read
