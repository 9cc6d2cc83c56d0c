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

from pytest_lima.errors import HostKeyError, InstanceDiedError
from pytest_lima.guest import answers, commands
from pytest_lima.instance import Instance
from pytest_lima.lima import identity
from pytest_lima.ownership.attach import attach
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.pool import Pool
from pytest_lima.ready import ReadyVM
from pytest_lima.settings import resolve
from pytest_lima.spec import machine_spec

if TYPE_CHECKING:
    from conftest import Recorder
    from fakelima.control import FakeLima


@pytest.fixture
def vm(fake_lima: FakeLima, observer: Recorder) -> Iterator[Instance]:
    """A ready one with Docker."""
    with ready(fake_lima, observer, "docker") as made:
        yield made


@contextmanager
def ready(fake_lima: FakeLima, observer: Recorder, *engines: str) -> Iterator[Instance]:
    pool = Pool(resolve({}, os.environ, {}), os.environ, observer)
    spec = replace(machine_spec(template=fake_lima.template()), engines=frozenset(engines))
    yield pool.create(spec, None)
    pool.close()
    fake_lima.assert_clean()


def set_wrong(vm: Instance) -> None:
    """As if the host had slept since it was made ready."""
    vm.run(f"date -u -s @{time.time() - 3600:.3f}", user="root")


def is_right(vm: Instance) -> bool:
    return abs(float(vm.run("date +%s.%N").stdout) - time.time()) < 60


@pytest.mark.parametrize("told", [lambda: time.time() - 3600, lambda: None])
def test_a_clock_that_docker_tells_wrong_or_not_at_all_is_corrected(
    vm: Instance, monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], float | None],
) -> None:  # fmt: skip
    set_wrong(vm)
    monkeypatch.setattr(answers, "docker_date", lambda path: told())
    booted = attach(vm._ready.request, Ledger(), set_clock=False)
    booted.connection.close()
    assert not is_right(vm)  # it can't have slept
    attach(vm._ready.request, Ledger(), set_clock=True).connection.close()
    assert is_right(vm)


def test_one_that_docker_tells_right_costs_no_command(
    vm: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_wrong(vm)
    # Seen in the middle of a second, as an answer takes next to none.
    monkeypatch.setattr(answers, "docker_date", lambda path: time.time() - 0.5)
    attach(vm._ready.request, Ledger(), set_clock=True).connection.close()
    assert not is_right(vm)


def test_without_docker_the_guest_is_asked(fake_lima: FakeLima, observer: Recorder) -> None:
    with ready(fake_lima, observer) as vm:
        set_wrong(vm)
        attach(vm._ready.request, Ledger(), set_clock=True).connection.close()
        assert is_right(vm)


def forwards(vm: Instance) -> list[int]:
    return [
        one.pid for one in identity.find(lambda argv: "-N" in argv and str(vm.dir) in str(argv))
    ]


def test_it_is_the_same_machine(vm: Instance) -> None:
    vm.write_text("seen", "by the first")
    before = forwards(vm)
    booted = attach(vm._ready.request, Ledger(), set_clock=True)
    with closing(booted.connection):
        assert commands.run(booted.connection, "cat seen").stdout == "by the first"
    assert booted.info == vm._ready.info
    assert booted.keys.keys == vm._ready.keys.keys
    assert booted.forward is not None
    assert f"unix://{booted.forward.sockets['docker']}" == vm.docker_host
    booted.forward.leave()
    assert forwards(vm) == before  # that of the first goes on


def test_what_its_starter_knew_of_it_is_known(vm: Instance) -> None:
    """How long it takes to boot, for a reboot, and whose word its host keys are."""
    joined = attach(vm._ready.request, Ledger(), set_clock=False)
    assert joined.cold_seconds == vm._ready.cold_seconds != None  # noqa: E711
    assert joined.keys.source == vm._ready.keys.source
    joined.close()


def test_a_dead_forward_is_made_anew(vm: Instance) -> None:
    [pid] = forwards(vm)
    os.kill(pid, 9)
    booted = attach(vm._ready.request, Ledger(), set_clock=False)
    with closing(booted.connection):
        assert booted.forward is not None
        assert f"unix://{booted.forward.sockets['docker']}" == vm.docker_host
    booted.forward.leave()
    [other] = forwards(vm)
    assert other != pid


@pytest.mark.parametrize("state", ["", '{"version": ', "[]", '{"version": 99}', None])
def test_one_that_can_not_be_read_is_not_joined(vm: Instance, state: str | None) -> None:
    file = vm.dir / "pl" / "ready.json"
    if state is None:
        file.unlink()
    else:
        file.write_text(state)
    with pytest.raises(InstanceDiedError, match="can't be joined") as caught:
        attach(vm._ready.request, Ledger(), set_clock=False)
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
    vm: Instance, field: str, value: object
) -> None:
    file = vm.dir / "pl" / "ready.json"
    state = json.loads(file.read_text())
    state[field] = value
    if value is ...:
        del state[field]
    file.write_text(json.dumps(state))
    with pytest.raises(InstanceDiedError, match="can't be joined") as caught:
        attach(vm._ready.request, Ledger(), set_clock=False)
    assert str(file) in str(caught.value)


def test_nor_is_one_without_host_keys(vm: Instance) -> None:
    (vm.dir / "pl" / "known_hosts").unlink()
    with pytest.raises(InstanceDiedError, match="can't be joined") as caught:
        attach(vm._ready.request, Ledger(), set_clock=False)
    assert "known_hosts" in str(caught.value)


def test_nor_is_a_dead_one(vm: Instance, fake_lima: FakeLima) -> None:
    fake_lima.crash(vm.name)
    with pytest.raises(InstanceDiedError):
        attach(vm._ready.request, Ledger(), set_clock=False)


def test_nor_one_with_other_host_keys_than_the_starter_has_seen(
    fake_lima: FakeLima, observer: Recorder
) -> None:
    with ready(fake_lima, observer) as vm:
        pin_another_key(vm)
        with pytest.raises(HostKeyError):
            attach(vm._ready.request, Ledger(), set_clock=False)


def pin_another_key(vm: Instance) -> None:
    known = vm.dir / "pl" / "known_hosts"
    name, kind, key = known.read_text().splitlines()[0].split()[:3]
    known.chmod(0o600)
    known.write_text(f"{name} {kind} {key[:-8]}AAAA{key[-4:]}\n")


def logins() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "pytest-lima-login"]


def test_no_login_is_waited_for_where_docker_answers(
    vm: Instance, fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "docker_date", lambda path: time.time() - 0.5)
    held = fake_lima.hold_logins(vm.name)
    for set_clock in (True, False):
        booted = attach(vm._ready.request, Ledger(), set_clock=set_clock)
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
    vm: Instance, fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the second alone, and the two clocks needn't turn it at the same time."""
    ahead = [0.4, -0.5]
    monkeypatch.setattr(answers, "docker_date", lambda path: time.time() + ahead.pop(0))
    held = fake_lima.hold_logins(vm.name)
    attach(vm._ready.request, Ledger(), set_clock=True).login.close()
    assert ahead == []
    held.unlink()


@pytest.mark.parametrize("why", ["no engine", "no forward", "no date", "no login before"])
def test_it_is_waited_for_where_nothing_else_says_that_it_is_well(
    fake_lima: FakeLima, observer: Recorder, monkeypatch: pytest.MonkeyPatch, until, why: str
) -> None:
    with ready(fake_lima, observer, *["docker"][why == "no engine" :]) as vm:
        if why == "no forward":
            os.kill(forwards(vm)[0], 9)
        elif why == "no login before":
            (vm.dir / "pl" / "no-login").touch()
        monkeypatch.setattr(answers, "docker_date", lambda path: None)
        held = fake_lima.hold_logins(vm.name)
        joined: list[ReadyVM] = []

        def join() -> None:
            joined.append(attach(vm._ready.request, Ledger(), set_clock=why == "no date"))

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
    vm: Instance,
) -> None:
    pin_another_key(vm)
    booted = attach(vm._ready.request, Ledger(), set_clock=False)
    with pytest.raises(HostKeyError, match="another machine answers"):
        _ = booted.connection
    with pytest.raises(HostKeyError, match="another machine answers"):
        attach(vm._ready.request, Ledger(), set_clock=False)


def test_one_that_dies_under_the_login_is_told_where_it_is_needed(
    vm: Instance, fake_lima: FakeLima
) -> None:
    fake_lima.hold_logins(vm.name)
    booted = attach(vm._ready.request, Ledger(), set_clock=False)
    other = Instance(booted, vm._owner)
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
    vm: Instance, fake_lima: FakeLima, until
) -> None:
    held = fake_lima.hold_logins(vm.name)
    begun = time.monotonic()
    for let_go in (Instance._detach, Instance.disconnect):
        other = Instance(attach(vm._ready.request, Ledger(), set_clock=False), vm._owner)
        assert logins()
        let_go(other)
        assert until(lambda: not logins())
    assert time.monotonic() - begun < 10
    held.unlink()


def test_so_does_one_of_an_instance_that_could_not_be_joined(
    vm: Instance, fake_lima: FakeLima, monkeypatch: pytest.MonkeyPatch, until
) -> None:
    def fails(path: object) -> None:
        raise InstanceDiedError("it has died")

    held = fake_lima.hold_logins(vm.name)
    monkeypatch.setattr(answers, "docker_date", fails)
    with pytest.raises(InstanceDiedError):
        attach(vm._ready.request, Ledger(), set_clock=True)
    assert until(lambda: not logins())
    held.unlink()
