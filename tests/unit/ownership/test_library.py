"""The engine without pytest, over the strict fake."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_lima.errors import CleanupError, TemplateError
from pytest_lima.lima.limactl import Limactl
from pytest_lima.ownership.library import lima_instance
from pytest_lima.settings import Settings, resolve

if TYPE_CHECKING:
    from conftest import Recorder
    from fakelima.control import FakeLima


def test_a_vm_for_a_block(fake_lima: FakeLima, observer: Recorder) -> None:
    with lima_instance(name="db", engine="docker", cpus=3, observer=observer) as vm:
        assert vm.name.endswith("-db")
        assert vm.cpus == 3
        assert vm.docker_host.startswith("unix://")
        assert observer.all("ready") == [vm.name]
    fake_lima.assert_clean()


def test_what_goes_wrong_in_it_ends_it_too(fake_lima: FakeLima) -> None:
    with pytest.raises(ZeroDivisionError), lima_instance():
        raise ZeroDivisionError
    fake_lima.assert_clean()


@pytest.mark.usefixtures("closed_again")
def test_what_stays_is_an_error_of_ours(
    fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(CleanupError) as caught,
        lima_instance() as vm,
    ):
        stay(patch)
    assert vm.name in str(caught.value)


@pytest.mark.usefixtures("closed_again")
def test_what_stays_hides_nothing(fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError) as caught:
        with lima_instance() as vm:
            stay(patch)
            raise ZeroDivisionError
    [note] = caught.value.__notes__
    assert vm.name in note


def stay(patch: pytest.MonkeyPatch) -> None:
    """Nothing can be removed from now on."""

    def refuse(limactl: Limactl, name: str, warn: object) -> None:
        raise CleanupError(f"{name} stays")

    patch.setattr("pytest_lima.ownership.removal.remove", refuse)


def test_bad_arguments_cost_nothing(fake_lima: FakeLima) -> None:
    for bad in ({"engine": "podman"}, {"cpus": "many"}, {"cpu": 2}, {"name": "No Name"}):
        with pytest.raises((TemplateError, TypeError)), lima_instance(**bad):  # type: ignore[arg-type]
            raise AssertionError("it booted")
    assert fake_lima.calls("create") == []
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()


def test_settings_of_the_caller_s(fake_lima: FakeLima) -> None:
    settings = Settings(home=str(fake_lima.home), accel="tcg", timeout=20.0, timeout_factor=1.0,
                        template=(fake_lima.template("ok"),))  # fmt: skip
    with lima_instance(settings=settings) as vm:
        assert vm.run("echo hello").stdout == "hello\n"
    fake_lima.assert_clean()


def vm_says_hello(_: int) -> str:
    # None may wait for another to wake up from.
    with lima_instance(settings=resolve({"start": "cold", "timeout": "90"}, os.environ, {})) as vm:
        vm.run("echo hello")
        return vm.name


def zombies() -> set[int]:
    found = set()
    for one in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.status() == psutil.STATUS_ZOMBIE:
                found.add(one.pid)
    return found


def test_a_process_that_lives_long_collects_its_children(
    fake_lima: FakeLima, until: Callable[..., bool]
) -> None:
    """The reapers', limactl's and ssh's of each VM: one after another, and in eight threads."""
    before = zombies()
    names = {vm_says_hello(number) for number in range(4)}
    with ThreadPoolExecutor(8) as threads:
        names |= set(threads.map(vm_says_hello, range(8)))
    assert len(names) == 12
    assert until(lambda: zombies() <= before)
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()


def test_nor_does_one_that_is_held_become_any(
    fake_lima: FakeLima, until: Callable[..., bool]
) -> None:
    before = zombies()
    with lima_instance(engine="docker") as vm:
        assert vm.run("true").ok
        assert until(lambda: zombies() <= before)  # of the limactl that has started it
    fake_lima.assert_clean()
