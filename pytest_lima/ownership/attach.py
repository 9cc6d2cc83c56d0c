"""Joining an instance that another process has made ready: a worker's, or an earlier run's.

Who makes it ready leaves a file in the instance's folder that says how to reach it. The host
keys are those pinned by the starter; whether the VM lives and its engines answer is seen anew.

A login takes an emulated guest a second, which a test that only talks to an engine doesn't need.
So it goes on beside everything else, and is waited for where nothing else says that the guest is
well.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pytest_lima import realtime
from pytest_lima.booted import Booted
from pytest_lima.errors import HostKeyError, InstanceDiedError, ReadyTimeoutError
from pytest_lima.guest import answers, clock, hostkeys, readiness
from pytest_lima.guest.address import Address
from pytest_lima.guest.answers import NotAnsweringError
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.login import Login
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.sockets import SocketForward
from pytest_lima.guest.ssh import Connection, Hold, connect
from pytest_lima.lima import engines, paths
from pytest_lima.lima.host import Host
from pytest_lima.lima.info import InstanceInfo
from pytest_lima.lima.vitals import Vitals
from pytest_lima.ownership.ledger import Ledger

_FILE = "ready.json"
_NO_LOGIN = "no-login"  # there after a login has failed, until the next one that hasn't
_VERSION = 1
_ANSWER_TIMEOUT = 60.0


def write_state(booted: Booted) -> None:
    """Leave behind how to reach a ready instance; whole or not at all."""
    state = {
        "version": _VERSION,
        "info": {**asdict(booted.info), "dir": str(booted.info.dir)},
        "address": {**asdict(booted.address), "key": str(booted.address.key)},
        "sockets": booted.forward.targets if booted.forward else {},
        "keys_last": booted.keys.lasting,
        "keys_from": booted.keys.source,
        "seconds": booted.seconds,
        "cold_seconds": booted.cold_seconds,
        "booted_as": booted.booted_as,
    }
    paths.write_whole(paths.our_folder(booted.info.dir) / _FILE, json.dumps(state))


def attach(host: Host, folder: Path, ledger: Ledger, *, set_clock: bool) -> Booted:
    """Begin to log in to the ready instance in ``folder``, and see that all of it works.

    Where its engines answer and its clock is right by what Docker says, the login is left to be
    waited for by the first who needs it. Not where one has failed before: that is to be known
    now, when the instance may be replaced.

    Args:
        host: The machine.
        folder: The instance's.
        ledger: Has the lock under which a dead forward is started anew.
        set_clock: Whether it may have slept since it was made ready.

    Raises:
        InstanceDiedError: It is dead, or its state can't be read.
        ReadyTimeoutError: It doesn't answer, or an engine of it doesn't.
        HostKeyError: Something else answers in its place.

    What the login raises, it may raise later, in ``Booted.connection``.
    """
    vitals = Vitals(folder)
    vitals.check()
    waiting = Waiting(realtime.monotonic() + _ANSWER_TIMEOUT, vitals.check, lambda: None)
    state = _read_state(folder)
    failed_before = (folder / "pl" / _NO_LOGIN).exists()
    login = Login.begin(lambda hold: _log_in(state, folder, waiting, hold))
    try:
        forward = _standing(state.sockets, folder)
        if forward is None or failed_before:
            login.get()
        if forward is None and state.sockets:
            forward = _forward(state.sockets, folder, state.address, host, waiting, ledger)
        if set_clock and not _is_clock_right(forward, login):
            clock.correct(login.get())
    except BaseException:
        login.close()
        raise
    return Booted(state.info, state.address, state.keys, login, forward, None, state.seconds,
                  state.booted_as, state.cold_seconds)  # fmt: skip


@dataclass(frozen=True)
class _State:
    """What was left behind, as ``Booted`` has it."""

    info: InstanceInfo
    address: Address
    keys: HostKeys
    sockets: dict[str, str]
    seconds: float
    booted_as: tuple[str, ...]
    cold_seconds: float | None


def _read_state(folder: Path) -> _State:
    path = folder / "pl" / _FILE
    try:
        state = json.loads(path.read_text())
        if state["version"] == _VERSION:
            return _state(state, folder)
        problem = f"version {state['version']!r}, not {_VERSION}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error)
    raise InstanceDiedError(
        f"{folder.name} can't be joined",
        seen=f"{path}: {problem}",
        remedy="it is replaced where that is allowed; else delete it with pytest-lima prune",
    )


def _state(state: dict[str, Any], folder: Path) -> _State:
    """Raises whatever comes of a file that says something else."""
    keys = hostkeys.from_known_hosts(folder / "pl" / "known_hosts")
    return _State(
        InstanceInfo(**{**state["info"], "dir": folder}),
        Address(**{**state["address"], "key": Path(state["address"]["key"])}),
        replace(keys, lasting=state.get("keys_last", True),
                source=str(state.get("keys_from", keys.source))),
        dict(state["sockets"]),
        float(state["seconds"]),
        tuple(state.get("booted_as", (folder.name,))),
        None if (cold := state.get("cold_seconds")) is None else float(cold),
    )  # fmt: skip


def _log_in(state: _State, folder: Path, waiting: Waiting, hold: Hold) -> Connection:
    noted = folder / "pl" / _NO_LOGIN

    def pinned() -> HostKeys:
        """Those of a guest that has woken up change when somebody reboots it."""
        known = folder / "pl" / "known_hosts"
        return state.keys if state.keys.lasting else hostkeys.from_known_hosts(known)

    try:
        # Several workers log in at once, which a slow guest's sshd doesn't take at the first try.
        connection = waiting.until("SSH", lambda: connect(state.address, pinned(), hold))
    except (HostKeyError, ReadyTimeoutError):
        with contextlib.suppress(OSError):  # others may be removing it
            noted.touch()
        raise
    with contextlib.suppress(OSError):
        noted.unlink(missing_ok=True)
    return connection


def _standing(guest_sockets: dict[str, str], folder: Path) -> SocketForward | None:
    """The standing forward, if its engines answer."""
    standing = SocketForward.standing(folder / "pl", guest_sockets)
    return standing if guest_sockets and _answers(standing) else None


def _forward(
    guest_sockets: dict[str, str],
    folder: Path,
    address: Address,
    host: Host,
    waiting: Waiting,
    ledger: Ledger,
) -> SocketForward:
    """A new forward in place of one that has died."""
    with ledger.alone_with(folder.name):
        if standing := _standing(guest_sockets, folder):  # another worker was faster
            return standing
        SocketForward.standing(folder / "pl", guest_sockets).close()
        forward = SocketForward(address, folder / "pl", guest_sockets, host.limactl.env)
        try:
            readiness.await_engines(waiting, forward.sockets)
        except BaseException:
            forward.close()
            raise
        return forward


def _is_clock_right(forward: SocketForward | None, login: Login) -> bool:
    """Whether that can be seen without a command, which costs an emulated guest half a second.

    Docker may have to be asked again for that, which is for as long as there is no login.
    """
    path = forward.sockets.get(engines.DOCKER) if forward else None
    return path is not None and clock.is_right_by_docker(path, login.over)


def _answers(forward: SocketForward) -> bool:
    with contextlib.suppress(NotAnsweringError):
        return all(answers.ping(name, path) for name, path in forward.sockets.items())
    return False
