"""Joining an instance that others use or have left, over the strict fake."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import InstanceDiedError
from pytest_lima.lima.identity import this_process
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.pool import Pool
from pytest_lima.ownership.run import Run
from pytest_lima.settings import resolve
from pytest_lima.spec import machine_spec

if TYPE_CHECKING:
    from conftest import Recorder
    from fakelima.control import FakeLima


def test_another_run_joins_what_was_left_for_it(
    pool: Callable[..., Pool], fake_lima: FakeLima
) -> None:
    asked = machine_spec(template=fake_lima.template())
    first = pool(reuse="true")
    name = first.acquire(asked).name
    first.close()
    second = pool(reuse="true", keep="never")
    vm = second.acquire(asked)
    assert vm.name == name
    assert vm.run("echo hello").stdout == "hello\n"
    assert len(fake_lima.calls("create")) == 1
    second.close()
    fake_lima.assert_clean()


def test_a_dead_one_is_made_anew_as_often_as_that_was_allowed(
    pool: Callable[..., Pool], fake_lima: FakeLima, observer: Recorder
) -> None:
    one = pool(recreate="1")
    vm = one.acquire(machine_spec(template=fake_lima.template()))
    name, port = vm.name, vm.ssh_port
    fake_lima.crash(name)
    assert one.renew(vm)
    assert vm.name == name and vm.ssh_port != port
    assert vm.run("echo hello").stdout == "hello\n"
    assert f"{name} has died and is made anew" in observer.all("warn")
    fake_lima.crash(name)
    assert not one.renew(vm)
    one.close()
    fake_lima.assert_clean()


def test_one_that_has_died_is_started_again_where_nobody_uses_it(
    pool: Callable[..., Pool], fake_lima: FakeLima, observer: Recorder
) -> None:
    asked = machine_spec(template=fake_lima.template())
    first = pool(reuse="true")
    vm = first.acquire(asked)
    vm.write_text("seen", "by the first")
    name = vm.name
    first.close()
    fake_lima.crash(name)
    second = pool(reuse="true", keep="never")
    again = second.acquire(asked)
    assert (again.name, again.read_text("seen")) == (name, "by the first")
    [warning] = [one for one in observer.all("warn") if "started again" in one]
    assert f"the VM {name} has died" in warning
    second.close()
    fake_lima.assert_clean()


def test_one_of_the_own_run_that_has_died_is_told_and_not_held(
    fake_lima: FakeLima, observer: Recorder
) -> None:
    """Whether later tests get another is for ``--lima-recreate`` to say."""
    asked = machine_spec(template=fake_lima.template())
    run = Run("run", this_process(), "gw0", many=True)

    def of_run() -> Pool:
        return Pool(resolve({}, os.environ, {}), os.environ, observer, run=run)

    first, second = of_run(), of_run()
    name = first.acquire(asked).name
    fake_lima.crash(name)
    with pytest.raises(InstanceDiedError, match=f"the VM {name} has died"):
        second.acquire(asked)
    record = Ledger().read(name)
    assert record is not None and record.leases == ()
    for one in (first, second):
        one.close()
    fake_lima.assert_clean()
