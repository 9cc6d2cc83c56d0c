from __future__ import annotations

import gc
import multiprocessing
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_lima.lima import forks


class Thing:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = forks.Origin()

    def let_go(self) -> None:
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {self.origin.is_here}\n")


@pytest.fixture
def thing(tmp_path: Path) -> Thing:
    one = Thing(tmp_path / "told")
    forks.let_go_in_children(one)
    return one


def by_os_fork() -> int:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def by_pty_fork() -> int:
    pid, terminal = pty.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(terminal)
    return pid


def by_multiprocessing() -> int:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    return process.pid or 0


def by_preexec() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""], preexec_fn=int)
    process.wait()
    return process.pid


@pytest.mark.parametrize("fork", [by_os_fork, by_pty_fork, by_multiprocessing, by_preexec])
def test_each_kind_of_child_lets_go(thing: Thing, fork) -> None:
    assert thing.origin.is_here
    pid = fork()
    assert thing.path.read_text() == f"{pid} False\n"


def test_what_is_gone_is_not_asked(tmp_path: Path) -> None:
    forks.let_go_in_children(Thing(tmp_path / "told"))
    gc.collect()
    by_os_fork()
    assert not (tmp_path / "told").exists()
