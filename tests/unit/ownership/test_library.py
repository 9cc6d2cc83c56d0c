"""The engine without pytest, over the strict fake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.ownership.library import lima_instance
from pytest_lima.settings import Settings

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
