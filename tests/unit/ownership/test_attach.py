"""Joining an instance of the strict fake that another has made ready."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_lima.booted import Booted
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


def test_what_its_starter_knew_of_it_is_known(there: tuple[Host, Instance]) -> None:
    """How long it takes to boot, for a reboot, and whose word its host keys are."""
    host, vm = there
    joined = attach(host, vm.dir, Ledger(), set_clock=False)
    assert joined.cold_seconds == vm.booted.cold_seconds != None  # noqa: E711
    assert joined.keys.source == vm.booted.keys.source
    joined.close()


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
    fake_lima: FakeLima, observer: Recorder
) -> None:
    with ready(fake_lima, observer) as (host, vm):
        pin_another_key(vm)
        with pytest.raises(HostKeyError):
            attach(host, vm.dir, Ledger(), set_clock=False)


def pin_another_key(vm: Instance) -> None:
    known = vm.dir / "pl" / "known_hosts"
    name, kind, key = known.read_text().splitlines()[0].split()[:3]
    known.chmod(0o600)
    known.write_text(f"{name} {kind} {key[:-8]}AAAA{key[-4:]}\n")


def logins() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "pytest-lima-login"]


def test_no_login_is_waited_for_where_docker_answers(
    there: tuple[Host, Instance], fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, vm = there
    monkeypatch.setattr(answers, "docker_date", lambda path: time.time() - 0.5)
    held = fake_lima.hold_logins(vm.name)
    for set_clock in (True, False):
        booted = attach(host, vm.dir, Ledger(), set_clock=set_clock)
        assert booted.forward is not None
        assert answers.ping("docker", booted.forward.sockets["docker"]) == "OK"
        assert logins()  # it goes on
        if set_clock:
            booted.login.close()
    threading.Timer(0.3, held.unlink).start()
    assert commands.run(booted.connection, "echo in").stdout == "in\n"
    assert not held.exists()
    booted.connection.close()


def test_docker_is_asked_again_where_its_date_is_not_clear(
    there: tuple[Host, Instance], fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the second alone, and the two clocks needn't turn it at the same time."""
    host, vm = there
    ahead = [0.4, -0.5]
    monkeypatch.setattr(answers, "docker_date", lambda path: time.time() + ahead.pop(0))
    held = fake_lima.hold_logins(vm.name)
    attach(host, vm.dir, Ledger(), set_clock=True).login.close()
    assert ahead == []
    held.unlink()


@pytest.mark.parametrize("why", ["no engine", "no forward", "no date", "no login before"])
def test_it_is_waited_for_where_nothing_else_says_that_it_is_well(
    fake_lima: FakeLima, observer: Recorder, monkeypatch: pytest.MonkeyPatch, until, why: str
) -> None:
    with ready(fake_lima, observer, *["docker"][why == "no engine" :]) as (host, vm):
        if why == "no forward":
            os.kill(forwards(vm)[0], 9)
        elif why == "no login before":
            (vm.dir / "pl" / "no-login").touch()
        monkeypatch.setattr(answers, "docker_date", lambda path: None)
        held = fake_lima.hold_logins(vm.name)
        joined: list[Booted] = []

        def join() -> None:
            joined.append(attach(host, vm.dir, Ledger(), set_clock=why == "no date"))

        thread = threading.Thread(target=join)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        held.unlink()
        thread.join(20)
        assert commands.run(joined[0].connection, "echo in").stdout == "in\n"
        joined[0].connection.close()
        if joined[0].forward:
            joined[0].forward.leave()
        assert not (vm.dir / "pl" / "no-login").exists()


def test_a_login_that_fails_later_is_told_then_and_at_once_to_the_next(
    there: tuple[Host, Instance],
) -> None:
    host, vm = there
    pin_another_key(vm)
    booted = attach(host, vm.dir, Ledger(), set_clock=False)
    with pytest.raises(HostKeyError, match="another machine answers"):
        _ = booted.connection
    with pytest.raises(HostKeyError, match="another machine answers"):
        attach(host, vm.dir, Ledger(), set_clock=False)


def test_one_that_dies_under_the_login_is_told_where_it_is_needed(
    there: tuple[Host, Instance], fake_lima: FakeLima
) -> None:
    host, vm = there
    fake_lima.hold_logins(vm.name)
    booted = attach(host, vm.dir, Ledger(), set_clock=False)
    other = Instance(host, vm._boot, booted)
    died: list[InstanceDiedError] = []

    def use() -> None:
        with pytest.raises(InstanceDiedError, match=f"the VM {vm.name} has died") as caught:
            other.run("true")
        died.append(caught.value)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    fake_lima.crash(vm.name)
    thread.join(5)
    assert died


def test_a_login_that_nobody_needed_ends_with_the_instance(
    there: tuple[Host, Instance], fake_lima: FakeLima, until
) -> None:
    host, vm = there
    held = fake_lima.hold_logins(vm.name)
    begun = time.monotonic()
    for let_go in (Instance.detach, Instance.disconnect):
        other = Instance(host, vm._boot, attach(host, vm.dir, Ledger(), set_clock=False))
        assert logins()
        let_go(other)
        assert until(lambda: not logins())
    assert time.monotonic() - begun < 10
    held.unlink()


def test_so_does_one_of_an_instance_that_could_not_be_joined(
    there: tuple[Host, Instance], fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch, until
) -> None:
    def fails(path: object) -> None:
        raise InstanceDiedError("it has died")

    host, vm = there
    held = fake_lima.hold_logins(vm.name)
    monkeypatch.setattr(answers, "docker_date", fails)
    with pytest.raises(InstanceDiedError):
        attach(host, vm.dir, Ledger(), set_clock=True)
    assert until(lambda: not logins())
    held.unlink()
