"""A forked child uses its parent's VM over a connection of its own, and takes nothing from it."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from pytest_lima import Instance, lima_instance
from pytest_lima.errors import LimaError
from pytest_lima.guest import answers, readiness


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_INTERVAL", 0.02)


@pytest.fixture
def vm(fake_lima) -> Iterator[Instance]:
    with lima_instance(engine="docker") as one:
        yield one


def forked(act: Callable[[], object]) -> None:
    """Run this in a child, which is to get to its end."""
    pid = os.fork()
    if not pid:
        try:
            act()
        except BaseException as error:
            os.write(2, f"in the child: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def check(condition: bool) -> None:
    assert condition


def test_both_use_it(vm, tmp_path) -> None:
    vm.run("true")
    vm.write_text("/tmp/file", "x")
    before = vm._link.get()

    def use() -> None:
        check(vm.run("echo child").stdout == "child\n")
        check(vm.run("cat", input="fed", user="root").stdout == "fed")
        check(vm.read_text("/tmp/file") == "x")
        vm.write_text("/tmp/child", "y")
        vm.put(Path(__file__).parent, "/tmp/tree")
        vm.get("/tmp/tree", tmp_path / "back")
        check(answers.ping("docker", Path(vm.docker_host.removeprefix("unix://"))) == "OK")
        check(vm.status == "Running")
        vm.disconnect()
        check(vm.run("echo again").stdout == "again\n")
        vm.detach()

    for _ in range(2):
        forked(use)
        assert vm.run("echo parent").stdout == "parent\n"
        assert vm.read_text("/tmp/child") == "y"
    assert vm._link.get() is before
    assert answers.ping("docker", Path(vm.docker_host.removeprefix("unix://"))) == "OK"


def test_children_of_children_and_many_at_once(vm) -> None:
    vm.run("true")
    context = multiprocessing.get_context("fork")

    def use(depth: int) -> None:
        check(vm.run("echo x").stdout == "x\n")
        if depth:
            forked(lambda: use(depth - 1))
        check(vm.run("echo y").stdout == "y\n")

    children = [context.Process(target=use, args=(1,)) for _ in range(4)]
    for child in children:
        child.start()
    assert vm.run("echo parent").stdout == "parent\n"
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert vm.run("echo parent").stdout == "parent\n"


def test_while_threads_of_the_parent_use_it(vm) -> None:
    """Which hold locks at that moment; a child has none of them."""
    ended = threading.Event()
    problems: list[BaseException] = []

    def busy() -> None:
        try:
            while not ended.is_set():
                assert vm.run("echo x", input="y").stdout == "x\n"
                vm.write_text("/tmp/file", "x" * 1000)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        forked(lambda: check(vm.run("echo child").stdout == "child\n"))
    ended.set()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_child_that_goes_on_from_a_callback_ends_nothing(vm) -> None:
    pids: list[int] = []

    def fork(name: str, data: bytes) -> None:
        if not pids:
            pids.append(os.fork())

    parent = os.getpid()
    try:
        result = vm.run("echo one; sleep 0.5; echo two", on_output=fork)
    except LimaError:
        if os.getpid() == parent:
            raise
        os._exit(0 if vm.run("echo child").stdout == "child\n" else 1)
    if os.getpid() != parent:
        os._exit(2)
    assert result.stdout == "one\ntwo\n"
    assert os.waitpid(pids[0], 0)[1] == 0
    assert vm.run("echo parent").stdout == "parent\n"


def test_what_a_child_leaves_by_its_interpreters_end(vm) -> None:
    """Handlers of its exit and garbage: nothing is said over the parent's connection."""
    vm.run("true")
    vm.read_bytes("/etc/hostname")
    pid = os.fork()
    if not pid:
        import atexit
        import gc

        vm._link = None
        gc.collect()
        atexit._run_exitfuncs()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert vm.run("echo parent").stdout == "parent\n"
    assert vm.read_bytes("/etc/hostname")


@pytest.mark.parametrize(
    "act",
    [lambda vm: vm.reboot(), lambda vm: vm.reset(), lambda vm: vm.snapshot("one"),
     lambda vm: vm.restore("one"), lambda vm: vm.clone()],
    ids=["reboot", "reset", "snapshot", "restore", "clone"],
)  # fmt: skip
def test_its_life_is_the_parents_business(vm, act) -> None:
    def try_it() -> None:
        with pytest.raises(LimaError, match="in a forked child"):
            act(vm)

    forked(try_it)
    assert vm.run("echo parent").stdout == "parent\n"


def test_a_child_that_leaves_the_block_ends_nothing(fake_lima) -> None:
    parent, pid = os.getpid(), 0
    try:
        with lima_instance(engine="docker") as vm:
            vm.run("true")
            pid = os.fork()
            if not pid:
                sys.exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
            assert vm.run("echo parent").stdout == "parent\n"
            assert vm.status == "Running"
            assert Path(vm.docker_host.removeprefix("unix://")).exists()
    except SystemExit as error:
        if os.getpid() == parent:
            raise
        os._exit(int(error.code or 0))
    fake_lima.assert_clean()


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_cannot_be_copied(vm, act) -> None:
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        act(vm)
    with pytest.raises(TypeError, match="Fork the process"):
        ForkingPickler.dumps(vm)  # what a child is started with that isn't forked
