from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.lima import standstill
from pytest_lima.lima.standstill import Standstill


class Qemu:
    """A monitor that answers; counts how often it is asked."""

    def __init__(self, status: str, disks: list[str]) -> None:
        self.status, self.disks, self.asked = status, disks, 0

    def __call__(self, path: Path) -> Qemu:
        return self

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *_: object) -> None: ...

    def execute(self, command: str) -> Any:
        self.asked += command == "query-status"
        if self.status == "gone":
            raise LimaError("QEMU could not do query-status")
        answers: dict[str, Any] = {
            "query-status": {"status": self.status},
            "query-block": [{"device": "cd0"}, *({"io-status": one} for one in self.disks)],
        }
        return answers[command]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch):
    """Lets time pass."""
    now = [realtime.monotonic()]
    monkeypatch.setattr(realtime, "monotonic", lambda: now[0])

    def pass_(seconds: float) -> None:
        now[0] += seconds

    return pass_


@pytest.fixture
def folder(short_path: Path) -> Iterator[Path]:
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(short_path / "qmp.sock"))
        yield short_path


@pytest.mark.parametrize(
    ("status", "disks", "cause"),
    [
        ("running", [], ""),
        ("inmigrate", [], ""),
        ("paused", [], ""),  # by somebody who will go on
        ("internal-error", [], "internal-error"),
        ("io-error", ["ok", "nospace"], "no space left on device"),
        ("io-error", ["failed"], "io-error"),
        ("gone", [], ""),
    ],
)
def test_a_guest_that_qemu_has_stopped(folder, later, monkeypatch, status, disks, cause) -> None:
    qemu = Qemu(status, disks)
    monkeypatch.setattr(standstill, "Monitor", qemu)
    look = Standstill(folder)
    assert look.cause() == ""
    assert qemu.asked == 0
    later(11)
    assert look.cause().endswith(cause)
    assert bool(look.cause()) is False  # it isn't asked again at once
    assert qemu.asked == 1
    later(11)
    assert bool(look.cause()) is bool(cause)


def test_a_guest_that_prints_is_not_asked_about(folder, later, monkeypatch) -> None:
    qemu = Qemu("internal-error", [])
    monkeypatch.setattr(standstill, "Monitor", qemu)
    look = Standstill(folder)
    for number in range(5):
        (folder / "serial.log").write_text("x" * number)
        later(9)
        assert look.cause() == ""
    assert qemu.asked == 0


def test_vz_has_no_monitor(tmp_path: Path, later) -> None:
    look = Standstill(tmp_path)
    look.cause()
    later(11)
    assert look.cause() == ""


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="no QEMU")
def test_a_real_qemu_is_asked(short_path: Path, later) -> None:
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-S", "-qmp",
            f"unix:{short_path}/qmp.sock,server=on,wait=off"]  # fmt: skip
    look = Standstill(short_path)
    look.cause()
    with subprocess.Popen(argv) as qemu:
        try:
            deadline = time.monotonic() + 10
            while not (short_path / "qmp.sock").exists():
                assert time.monotonic() < deadline
            later(11)
            assert look.cause() == ""  # prelaunch
        finally:
            qemu.kill()
