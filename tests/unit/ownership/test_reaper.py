"""The reaper as it is run: a process, with a pipe to the one it watches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_lima.lima import identity
from pytest_lima.lima.identity import Identity
from pytest_lima.lima.process import GOODBYE
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.reaper import READY as IS_READY
from pytest_lima.ownership.record import READY, Record


@dataclass
class Scene:
    """A process that may be killed, its reaper, and the ledger of both."""

    ledger: Ledger
    record: Record
    parent: subprocess.Popen[bytes]
    reaper: subprocess.Popen[bytes]
    argv: list[str]
    env: dict[str, str]

    def says(self, word: bytes) -> None:
        assert self.reaper.stdin is not None
        self.reaper.stdin.write(word)
        self.reaper.stdin.close()

    def kill_parent(self) -> None:
        self.parent.kill()
        self.parent.wait()
        self.says(b"")


def sleeper() -> tuple[subprocess.Popen[bytes], Identity]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = identity.of(process.pid)
    assert found is not None
    return process, found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    ledger = Ledger(tmp_path / "pytest-lima" / "instances")
    parent, owner = sleeper()
    argv = [sys.executable, "-m", "pytest_lima.ownership.reaper", str(owner.pid),
            repr(owner.started), owner.host]  # fmt: skip
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    reaper = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reaper.stdout is not None and reaper.stdout.readline() == IS_READY
    # Nothing of it but its record: what is removed is the matter of other tests.
    record = Record("pl-1", str(tmp_path), "/bin/true", "key", "run", owner, owner, state=READY,
                    leases=(owner,), used=time.time())  # fmt: skip
    ledger.write(record)
    yield Scene(ledger, record, parent, reaper, argv, env)
    for process in (parent, reaper):
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def test_what_a_killed_process_leaves_goes(scene: Scene, until: Callable[..., bool]) -> None:
    scene.kill_parent()
    assert until(lambda: scene.ledger.read("pl-1") is None)
    assert scene.reaper.wait(10) == 0


def test_it_need_not_be_heard(scene: Scene, until: Callable[..., bool]) -> None:
    """Its process was killed before it was ready."""
    scene.kill_parent()
    hears, says = os.pipe()
    os.close(hears)
    assert until(lambda: scene.ledger.read("pl-1") is None)
    scene.ledger.write(scene.record)
    again = subprocess.run(scene.argv, env=scene.env, stdin=subprocess.DEVNULL, stdout=says,
                           stderr=subprocess.PIPE, timeout=30, check=False)  # fmt: skip
    os.close(says)
    assert (again.returncode, again.stderr) == (0, b"")
    assert scene.ledger.read("pl-1") is None


def test_it_waits_while_its_process_lives(scene: Scene) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        scene.reaper.wait(1.5)  # longer than it takes to look
    assert scene.ledger.read("pl-1") == scene.record


def test_a_fork_that_holds_the_pipe_deceives_nobody(
    scene: Scene, until: Callable[..., bool]
) -> None:
    scene.parent.kill()
    scene.parent.wait()
    assert until(lambda: scene.ledger.read("pl-1") is None)


def test_dismissed_it_goes_and_leaves_all_as_it_is(scene: Scene) -> None:
    scene.says(GOODBYE)
    assert scene.reaper.wait(10) == 0
    assert scene.ledger.read("pl-1") == scene.record


def test_what_others_use_stays(scene: Scene) -> None:
    other, user = sleeper()
    try:
        scene.ledger.write(replace(scene.record, leases=(user,), run="theirs", owner=user))
        scene.kill_parent()
        assert scene.reaper.wait(10) == 0
        assert scene.ledger.read("pl-1") is not None
    finally:
        other.kill()
        other.wait()


def test_a_kept_one_is_waited_for_until_it_is_idle(
    scene: Scene, tmp_path: Path, until: Callable[..., bool]
) -> None:
    (tmp_path / "pl-1").mkdir()
    scene.ledger.write(replace(scene.record, keep=True, idle=3.0, leases=(), used=time.time()))
    scene.says(GOODBYE)
    assert scene.ledger.read("pl-1") is not None
    log = tmp_path / "pytest-lima/reaper.log"  # the last that it writes
    assert until(lambda: "which nobody had used for 3 s" in log.read_text())
    assert scene.ledger.read("pl-1") is None


def test_its_sweep_imports_nothing(tmp_path: Path) -> None:
    """Whatever becomes of the environment's files while tests run."""
    program = f"""
import os, sys
from pathlib import Path
from pytest_lima.ownership import reaper
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import READY, Record
from pytest_lima.ownership.sweep import Sweeper
from pytest_lima.lima.identity import Identity, this_host

home = Path({str(tmp_path / "home")!r})
limactl = home / "limactl"
home.mkdir()
limactl.write_text("#!/bin/sh\\nexec rm -r " + str(home / "pl-1"))
limactl.chmod(0o755)
(home / "pl-1").mkdir()
(home / "pl-1/lima.yaml").touch()
(home / "pl-1/ha.pid").write_text("1")
ledger = Ledger(home / "instances")
reaper._load()
reaper._open_log(home)
nobody = Identity(999999, 1.0, this_host())
ledger.write(Record("pl-1", str(home), str(limactl), "key", "run", nobody, nobody, state=READY))
before = set(sys.modules)
reaper._sweep(ledger, Sweeper(ledger, os.environ, reaper._log.warning))
print(*sorted(set(sys.modules) - before), ledger.records(), (home / "pl-1").exists())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=30, check=True)  # fmt: skip
    assert done.stdout.split() == ["[]", "False"]
