"""Tests on real VMs. Most share the `lima` fixture's, so that the suite boots few of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from fakelima.hearing import hearing

from pytest_lima import Instance, InstanceDiedError

PROJECT = Path(__file__).parents[2]


@dataclass
class Run:
    """A pytest of its own, with a LIMA_HOME of its own."""

    home: Path
    argv: list[str]
    env: dict[str, str]
    process: subprocess.Popen[str] | None = None

    def start(self, cwd: Path) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            hearing(self.argv),
            cwd=cwd,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self.process

    def end(self) -> None:
        """Interrupt it, should it still run because a test of ours failed."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            print(self.process.communicate(timeout=60)[0])

    def finish(self, cwd: Path = PROJECT) -> tuple[int, str]:
        process = self.start(cwd)
        output, _ = process.communicate()
        print(output)
        return process.returncode, output

    def instances(self) -> list[str]:
        return [path.parent.name for path in self.home.glob("*/lima.yaml")]

    def processes(self) -> list[str]:
        """Command lines of everything that still works on an instance of this LIMA_HOME."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(self.home) in line and process.pid != os.getpid():
                found.append(line)
        return found

    def await_file(self, path: Path, seconds: float) -> None:
        """Until its test has made ``path``: what it prints, a pipe holds back."""
        process = self.process
        assert process is not None
        deadline = time.monotonic() + seconds
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise AssertionError(f"no {path} within {seconds} s, or before its end")
            time.sleep(0.05)

    def assert_nothing_left(self, within: float = 0.0) -> None:
        """Seconds are for the reaper, and for what a ``limactl delete`` leaves: an ssh."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and (self.instances() or self.processes()):
            time.sleep(0.1)
        assert self.instances() == []
        assert self.processes() == []
        assert not list(self.home.glob("pl-*"))


@contextmanager
def runs() -> Iterator[Callable[..., Run]]:
    """Makes runs of pytest that share a short LIMA_HOME and a state directory of their own."""
    made: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as folder:

        def make(*args: str) -> Run:
            home = Path(folder) / "h"
            env = {key: value for key, value in os.environ.items()
                   if not key.startswith(("PYTEST_XDIST", "PYTEST_CURRENT", "COV_"))}  # fmt: skip
            env |= {"PYTEST_LIMA_HOME": str(home), "XDG_STATE_HOME": f"{folder}/state"}
            argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
            made.append(Run(home, argv, env))
            return made[-1]

        yield make
        for run in made:
            run.end()


@pytest.fixture(scope="session")
def _all_runs() -> Iterator[Callable[..., Run]]:
    with runs() as make:
        yield make


@pytest.fixture
def a_run(_all_runs: Callable[..., Run]) -> Iterator[Callable[..., Run]]:
    """Makes runs of a test. What one of another test has kept, they may wake up from."""
    made: list[Run] = []

    def make(*args: str) -> Run:
        made.append(_all_runs(*args))
        return made[-1]

    yield make
    for run in made:
        run.end()


@pytest.fixture(scope="module")
def again() -> Iterator[Callable[..., Run]]:
    """Makes runs that share what was kept with those of the module's other tests."""
    with runs() as make:
        yield make


@pytest.fixture
def reboot() -> Callable[..., None]:
    """Reboots a VM after a function was called; both once more where the emulator broke it.

    QEMU 7.2, emulating two processors, was seen once in some fifty reboots to execute an
    instruction that the booting kernel had replaced meanwhile: "Oops: int3", and a panic.
    """

    def rebooted(vm: Instance, prepare: Callable[[], object] = lambda: None) -> None:
        prepare()
        try:
            vm.reboot()
        except InstanceDiedError:
            if "Oops: int3" not in vm.console_log():
                raise
            vm.reset()
            prepare()
            vm.reboot()

    return rebooted


@pytest.fixture
def template_copy(lima_template: str, tmp_path: Path) -> Path:
    """The run's template in a file of another name, to be changed by a test."""
    path = tmp_path / "other.yaml"
    limactl = shutil.which("limactl")
    assert limactl is not None
    done = subprocess.run(
        [limactl, "template", "copy", "--embed-all", lima_template, str(path)],
        check=True,
        capture_output=True,
    )
    assert path.exists(), done.stderr
    return path
