"""Joining an instance of the strict fake that another has made ready."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import HostKeyError, InstanceDiedError
from pytest_lima.guest import answers, commands
from pytest_lima.instance import Instance
from pytest_lima.lima import identity
from pytest_lima.lima.host import Host
from pytest_lima.ownership.attach import attach
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.pool import Pool
from pytest_lima.settings import resolve
from pytest_lima.spec import machine_spec

if TYPE_CHECKING:
    from conftest import Recorder
    from fakelima.control import FakeLima


@pytest.fixture
def there(fake_lima: FakeLima, observer: Recorder) -> Iterator[tuple[Host, Instance]]:
    """A ready instance with Docker, and where it is."""
    with ready(fake_lima, observer, "docker") as made:
        yield made


@contextmanager
def ready(
    fake_lima: FakeLima, observer: Recorder, *engines: str
) -> Iterator[tuple[Host, Instance]]:
    pool = Pool(resolve({}, os.environ, {}), os.environ, observer)
    spec = replace(machine_spec(template=fake_lima.template()), engines=frozenset(engines))
    yield pool.host(), pool.create(spec, None)
    pool.close()
    fake_lima.assert_clean()


def set_wrong(vm: Instance) -> None:
    """As if the host had slept since it was made ready."""
    vm.run(f"date -u -s @{time.time() - 3600:.3f}", user="root")


def is_right(vm: Instance) -> bool:
    return abs(float(vm.run("date +%s.%N").stdout) - time.time()) < 60


@pytest.mark.parametrize("told", [lambda: time.time() - 3600, lambda: None])
def test_a_clock_that_docker_tells_wrong_or_not_at_all_is_corrected(
    there: tuple[Host, Instance], monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], float | None],
) -> None:  # fmt: skip
    host, vm = there
    set_wrong(vm)
    monkeypatch.setattr(answers, "docker_date", lambda path: told())
    booted = attach(host, vm.dir, Ledger(), set_clock=False)
    booted.connection.close()
    assert not is_right(vm)  # it can't have slept
    attach(host, vm.dir, Ledger(), set_clock=True).connection.close()
    assert is_right(vm)


def test_one_that_docker_tells_right_costs_no_command(
    there: tuple[Host, Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, vm = there
    set_wrong(vm)
    # Seen in the middle of a second, as an answer takes next to none.
    monkeypatch.setattr(answers, "docker_date", lambda path: time.time() - 0.5)
    attach(host, vm.dir, Ledger(), set_clock=True).connection.close()
    assert not is_right(vm)


def test_without_docker_the_guest_is_asked(fake_lima: FakeLima, observer: Recorder) -> None:
    with ready(fake_lima, observer) as (host, vm):
        set_wrong(vm)
        attach(host, vm.dir, Ledger(), set_clock=True).connection.close()
        assert is_right(vm)


def forwards(vm: Instance) -> list[int]:
    return [
        one.pid for one in identity.find(lambda argv: "-N" in argv and str(vm.dir) in str(argv))
    ]


def test_it_is_the_same_machine(there: tuple[Host, Instance]) -> None:
    host, vm = there
    vm.write_text("seen", "by the first")
    before = forwards(vm)
    booted = attach(host, vm.dir, Ledger(), set_clock=True)
    with closing(booted.connection):
        assert commands.run(booted.connection, "cat seen").stdout == "by the first"
    assert booted.info == vm.booted.info
    assert booted.keys.keys == vm.booted.keys.keys
    assert booted.forward is not None
    assert f"unix://{booted.forward.sockets['docker']}" == vm.docker_host
    booted.forward.leave()
    assert forwards(vm) == before  # that of the first goes on


def test_a_dead_forward_is_made_anew(there: tuple[Host, Instance]) -> None:
    host, vm = there
    [pid] = forwards(vm)
    os.kill(pid, 9)
    booted = attach(host, vm.dir, Ledger(), set_clock=False)
    with closing(booted.connection):
        assert booted.forward is not None
        assert f"unix://{booted.forward.sockets['docker']}" == vm.docker_host
    booted.forward.leave()
    [other] = forwards(vm)
    assert other != pid


@pytest.mark.parametrize("state", ["", '{"version": ', "[]", '{"version": 99}', None])
def test_one_that_can_not_be_read_is_not_joined(
    there: tuple[Host, Instance], state: str | None
) -> None:
    host, vm = there
    file = vm.dir / "pl" / "ready.json"
    if state is None:
        file.unlink()
    else:
        file.write_text(state)
    with pytest.raises(InstanceDiedError, match="can't be joined") as caught:
        attach(host, vm.dir, Ledger(), set_clock=False)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("info", {"name": "pl-1", "shape": "unknown"}),
        ("address", {"host": "127.0.0.1"}),
        ("address", None),
        ("sockets", 7),
        ("seconds", "long"),
        ("booted_as", None),
        ("info", ...),
        ("seconds", ...),
    ],
)
def test_nor_is_one_whose_state_says_something_else(
    there: tuple[Host, Instance], field: str, value: object
) -> None:
    host, vm = there
    file = vm.dir / "pl" / "ready.json"
    state = json.loads(file.read_text())
    state[field] = value
    if value is ...:
        del state[field]
    file.write_text(json.dumps(state))
    with pytest.raises(InstanceDiedError, match="can't be joined") as caught:
        attach(host, vm.dir, Ledger(), set_clock=False)
    assert str(file) in str(caught.value)


def test_nor_is_one_without_host_keys(there: tuple[Host, Instance]) -> None:
    host, vm = there
    (vm.dir / "pl" / "known_hosts").unlink()
    with pytest.raises(InstanceDiedError, match="can't be joined") as caught:
        attach(host, vm.dir, Ledger(), set_clock=False)
    assert "known_hosts" in str(caught.value)


def test_nor_is_a_dead_one(there: tuple[Host, Instance], fake_lima: FakeLima) -> None:
    host, vm = there
    fake_lima.crash(vm.name)
    with pytest.raises(InstanceDiedError):
        attach(host, vm.dir, Ledger(), set_clock=False)


def test_nor_one_with_other_host_keys_than_the_starter_has_seen(
    there: tuple[Host, Instance],
) -> None:
    host, vm = there
    known = vm.dir / "pl" / "known_hosts"
    name, kind, key = known.read_text().splitlines()[0].split()[:3]
    known.chmod(0o600)
    known.write_text(f"{name} {kind} {key[:-8]}AAAA{key[-4:]}\n")
    with pytest.raises(HostKeyError):
        attach(host, vm.dir, Ledger(), set_clock=False)
