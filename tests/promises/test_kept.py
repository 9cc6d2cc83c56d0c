"""Promises 38 and 39: what is kept for warm starts is whole, or isn't used.

On a store of its own. Runs that wake up, are killed at it, or find a spoilt one, are in
tests/e2e/test_warm.py, as only a real QEMU keeps memory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima import InstanceDiedError, LimaError
from pytest_lima.guest.identity import Kept
from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.host import Host
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.qmp import Monitor
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.observer import Observer
from pytest_lima.warm import start
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.store import Store

# Makes the machine `key` of the store in argv[1], or finds it made; killed half way if told so.
BUILD = """
import sys, time
from pathlib import Path
from pytest_lima.guest.identity import Kept
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.store import Store

store = Store(Path(sys.argv[1]))

def wait(done):
    while not done():
        time.sleep(0.01)

with store.building("key", wait):
    if store.find("key"):
        print("found", flush=True)
        sys.exit()
    with store.half("key") as folder:
        (folder / "state").write_text("half")
        print("half", flush=True)
        time.sleep(float(sys.argv[2]))
        (folder / "state").write_text("whole")
        (folder / "disk-1").touch()
        kept = Kept("t", "h")
        disk = ("disk-1", "raw")
        store.publish(Golden(folder, "key", "pl-1", "t", kept, "ann", {}, *disk, ("pl-1",)))
        print("made", flush=True)
"""


class Warnings(Observer):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


def build(home: Path, seconds: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", BUILD, str(home), str(seconds)]
    return subprocess.Popen(argv, text=True, stdout=subprocess.PIPE)


def test_38_one_makes_it_the_others_find_it_made(tmp_path):
    builders = [build(tmp_path, 0.5) for _ in range(3)]
    said = sorted(one.communicate(timeout=60)[0] for one in builders)
    assert said == ["found\n", "found\n", "half\nmade\n"]
    assert Store(tmp_path).all()[0].state.read_text() == "whole"


def test_38_half_of_one_is_never_found(tmp_path):
    killed = build(tmp_path, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "half\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert Store(tmp_path).find("key") is None and Store(tmp_path).all() == []
    assert len(list((tmp_path / "_golden").glob("key.half-*"))) == 1
    assert build(tmp_path, 0).communicate(timeout=60)[0] == "half\nmade\n"
    assert not list((tmp_path / "_golden").glob("key.half-*"))


@pytest.fixture
def qemu(tmp_path, request):
    """The monitor of a real QEMU with an empty machine, which waits for a state if told so."""
    binary = shutil.which("qemu-system-x86_64")
    if binary is None:
        pytest.skip("qemu-system-x86_64 is missing")
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as folder:
        path = Path(folder) / "qmp.sock"
        argv = [binary, "-accel", "tcg", "-m", "16", "-display", "none", "-nodefaults",
                "-qmp", f"unix:{path},server=on,wait=off", *request.param]  # fmt: skip
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield connected(path)
            finally:
                process.kill()


def connected(path: Path) -> Monitor:
    deadline = time.monotonic() + 30
    while True:
        try:
            return Monitor(path)
        except InstanceDiedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("qemu", [[]], indirect=True)
def test_38_a_memory_that_could_not_be_written_is_an_error(qemu):
    with qemu, Path("/dev/full").open("wb") as full:
        qemu.pass_file("state", full.fileno())
        with pytest.raises(LimaError, match="No space left"):
            qemu.migrate("migrate", {"uri": "fd:state"}, 30)
        assert qemu.execute("query-status")["status"] != "postmigrate"


@pytest.mark.parametrize("content", [b"", b"QEVM", b"nonsense" * 1000], ids=["no", "half", "bad"])
@pytest.mark.parametrize("qemu", [["-incoming", "defer"]], indirect=True)
def test_39_a_memory_that_can_not_be_loaded_is_an_error(qemu, tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with qemu, (tmp_path / "state").open("rb") as state:
        qemu.pass_file("state", state.fileno())
        with pytest.raises(LimaError):
            qemu.migrate("migrate-incoming", {"uri": "fd:state"}, 30)


@pytest.fixture
def starts() -> list[str]:
    return []


@pytest.fixture
def order(tmp_path, starts) -> start.Order:
    """Of a machine that only remembers its cold starts."""
    host = Host(Limactl("/bin/false", tmp_path, {"PATH": os.environ["PATH"]}, {}), "2.2.0",
                "qemu", "x86_64", Accelerator("tcg"))  # fmt: skip

    def cold(_: start.Then) -> tuple[None, None]:
        starts.append("cold")
        return None, None

    return start.Order(host, "pl-1", FilledTemplate("text", "key", {}, ()), "template:debian", (),
                       60, Warnings(), "auto", 10, cold,
                       lambda: shutil.rmtree(tmp_path / "pl-1"))  # fmt: skip


def keep(order: start.Order) -> Golden:
    """A kept machine for it whose memory and disk are nonsense."""
    store = Store(order.host.limactl.home)
    key = start.fit.key(order.host, order.filled)
    with store.building(key, lambda done: None), store.half(key) as folder:
        for name in ("state", "disk-1"):
            (folder / name).write_bytes(b"nonsense")
        return store.publish(
            Golden(
                folder, key, "pl-0", "t", Kept("t", "h"), "ann", {}, "disk-1", "qcow2", ("pl-0",)
            )
        )


def test_39_what_does_not_wake_up_goes_and_the_vm_starts_cold(order, starts):
    golden = keep(order)
    start.start(order)
    assert starts == ["cold"]
    [warning] = order.observer.said
    assert warning.startswith("pl-1 could not wake up and starts cold: ")
    assert not golden.folder.exists()


def test_39_where_warm_was_asked_for_that_is_an_error(order, starts):
    golden = keep(order)
    with pytest.raises(LimaError):
        start.start(replace(order, mode="warm"))
    assert starts == []
    assert not golden.folder.exists()
