"""Promises are kept over the fake limactl of tests/fake, some with a real QEMU, some in a guest."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from fakelima.fixtures import fake_lima as fake_lima
from fakelima.hearing import hearing

# pytester takes modules back out that a run in this process has imported. These can't be
# imported twice (cryptography's Rust part), or cost more than the run.
for _name in ("cryptography", "filelock", "h2.connection", "paramiko", "platformdirs", "psutil",
              "tenacity", "yaml"):  # fmt: skip
    importlib.import_module(_name)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("pytester")


@pytest.fixture
def pytester(pytester: pytest.Pytester, fake_lima: object) -> pytest.Pytester:
    """pytest's, with the fake in the environment of its runs."""
    return pytester


class Run:
    """A pytest of its own that can be hit."""

    def __init__(self, args: tuple[str, ...], env: dict[str, str], log: Path) -> None:
        argv = [sys.executable, "-u", "-m", "pytest", "-p", "no:cacheprovider", *args]
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(hearing(argv), env=env, start_new_session=True,
                                            stdout=file, stderr=file)  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def await_line(self, text: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def reapers(self) -> list[psutil.Process]:
        """The reapers that watch over this pytest and its workers."""
        watched = {str(self.pid)}
        if psutil.pid_exists(self.pid):
            watched |= {str(one.pid) for one in psutil.Process(self.pid).children(recursive=True)}
        found = []
        for one in psutil.process_iter(["cmdline"]):
            argv = one.info["cmdline"] or []
            if "pytest_lima.ownership.reaper" in argv and watched & set(argv):
                found.append(one)
        return found

    def hit(self, number: int) -> None:
        os.kill(self.pid, number)

    def ends(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path, pytester: pytest.Pytester) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(*args: str, **env: str) -> Run:
        runs.append(Run(args, {**os.environ, **env}, tmp_path / f"run-{len(runs)}.log"))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.fixture
def soon(fake_lima: object) -> Callable[[], None]:
    """Nothing is left within the fifteen seconds that are promised."""

    def check() -> None:
        deadline = time.monotonic() + 15
        while True:
            try:
                fake_lima.assert_clean()  # type: ignore[attr-defined]
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    return check
