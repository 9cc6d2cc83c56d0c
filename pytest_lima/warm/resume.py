"""A VM that wakes up from a kept one: its disk an overlay, its memory loaded from the file.

To Lima it is a stopped instance that is started as any other. Its folder is laid out as
``limactl clone`` would do it, with links in place of copies. QEMU is started to wait for its
state, gets it through QMP, and in the guest everything is already running.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import InstanceDiedError, ReadyTimeoutError, StartError
from pytest_lima.guest import clock, identity, readiness, rekey
from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.login import Login
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.sockets import SocketForward
from pytest_lima.guest.ssh import Connection, Hold, connect
from pytest_lima.lima import cidata, evidence, logs, process, qmp
from pytest_lima.lima.accel import qemu_binary
from pytest_lima.lima.host import Host
from pytest_lima.lima.info import InstanceInfo
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.qmp import MigrationError, Monitor, guest_address
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.lima.vitals import Vitals
from pytest_lima.observer import Observer
from pytest_lima.warm.bake import BINARIES, LAYER, TEXTS, create_overlay
from pytest_lima.warm.golden import Golden, RefusedStateError

# Emulated it takes three seconds. What takes longer than this is better started cold.
_LONGEST = 60.0
_INTERVAL = 0.02
_LAST_WORDS = 3.0
# What QEMU says when it ends because of a state that it has begun to read (QEMU: migration/).
_REFUSAL = re.compile(
    r"load of migration failed|error while loading state|not a migration stream|"
    r"unknown (ramblock|savevm section)|unsupported migration stream|size mismatch|"
    r"length mismatch|missing section footer",
    re.IGNORECASE,
)
# And at the same places when it is the host that can't.
_OF_THE_HOST = re.compile(
    r"cannot allocate memory|out of memory|too many open files|no space left|permission denied",
    re.IGNORECASE,
)


class Resume(Boot):
    """The waking up of one instance; what it can do after that is as after a cold boot."""

    _doing = "waking up"

    def __init__(
        self,
        host: Host,
        name: str,
        filled: FilledTemplate,
        timeout: float,
        observer: Observer,
        golden: Golden,
        *,
        own_keys: bool = False,
    ) -> None:
        """Prepare to wake ``name`` up from ``golden``; ``timeout`` as for a cold boot.

        ``own_keys``: with new SSH host keys instead of the kept ones.
        """
        super().__init__(_waiting_for_state(host), name, filled, timeout, observer)
        self._deadline = self._begun + min(timeout, _LONGEST)
        self._golden = golden
        self._inside = golden.booted_as[-1]
        self._own_keys = own_keys
        # Held open, so that it may be removed while we use it.
        self._state = os.open(golden.state, os.O_RDONLY)

    def lay_out(self) -> None:
        """Make the folder of a stopped instance.

        Raises:
            StartError: Its disk could not be made.
            OSError: The kept machine is gone, or the file system is full.
        """
        self._dir.mkdir(mode=0o700)
        for source in self._golden.folder.iterdir():
            if source.name in (*TEXTS, logs.KEPT_CONSOLE):
                shutil.copyfile(source, self._dir / source.name)
            elif source.name in BINARIES or source.name.startswith(LAYER):
                os.link(source, self._dir / source.name)
        create_overlay(
            self._dir / "disk", self._golden.layer, self._golden.layer_format,
            self._host.limactl.env,
        )  # fmt: skip

    def _timed(self, booted: Booted) -> Booted:
        return replace(booted, cold_seconds=self._golden.cold_seconds)

    def close(self) -> None:
        """Let go of the kept memory."""
        os.close(self._state)

    def _make_ready(self, child: process.Child, folder: Path) -> Booted:
        waiting = self._waiting()
        self._load(waiting)
        info, address = self._locate(waiting)
        keys = HostKeys(self._golden.host_keys, f"the kept {self._golden.name}", lasting=False)
        keys.write_known_hosts(folder / "known_hosts", self._name)
        if len(self._golden.booted_as) > 1:  # Lima leads to the first address
            self._lead_ssh_to(guest_address(self._golden.booted_as), address.port)
        drift = 0.0
        if self._own_keys:
            keys, drift = self._exchange_keys(waiting, address, keys, folder)
        # Beside the forward, which logs in too.
        login = Login.begin(lambda hold: self._log_in(address, keys, hold))
        forward = None
        try:
            if self._own_keys:
                forward = self._engines(waiting, info, address)
            else:
                forward, drift = self._wake_to_engines(waiting, info, address)
            if abs(drift) > clock.TOLERANCE:  # on a busy machine the way here and back
                clock.correct(login.get())
        except BaseException:
            login.close()
            if forward is not None:
                forward.close()
            raise
        return Booted(info, address, keys, login, forward, child, 0.0, self._golden.booted_as)

    def _log_in(self, address: Address, keys: HostKeys, hold: Hold) -> Connection:
        """Log in, for whoever needs it first: it is not waited for here."""
        waiting = Waiting(realtime.monotonic() + _LONGEST, Vitals(self._dir).check, lambda: None)
        return waiting.until("SSH", lambda: connect(address, keys, hold))

    def _locate(self, waiting: Waiting) -> tuple[InstanceInfo, Address]:
        """As the kept one was: limactl needs not be asked."""
        kept = self._golden.info
        if kept is None:
            return super()._locate(waiting)
        info = replace(kept, name=self._name, dir=self._dir)
        return info, self._address(self._ssh_port(waiting), info.user)

    def _load(self, waiting: Waiting) -> None:
        qmp.prepare()  # while QEMU starts
        path = self._dir / "qmp.sock"

        def attach() -> Monitor | None:
            try:
                return Monitor(path) if path.is_socket() else None
            except InstanceDiedError:
                return None  # there, and not listening yet

        with waiting.until("QMP socket of QEMU", attach, _INTERVAL) as monitor:
            monitor.pass_file("state", self._state)
            try:
                monitor.migrate("migrate-incoming", {"uri": "fd:state"}, self._left())
                monitor.execute("cont")
            except MigrationError as error:
                said = error.seen or ""
                raise _not_loaded(said, refused=True) from error
            except InstanceDiedError as error:
                # Its way to say that it can't load a state; or it was killed, by Linux for one.
                said = self._last_words()
                refused = _REFUSAL.search(said) is not None
                raise _not_loaded(said or error.seen or "", refused=refused) from error

    def _last_words(self) -> str:
        """What QEMU said when it ended, as soon as its host agent has written that down."""
        over = realtime.monotonic() + _LAST_WORDS
        waiting = Waiting(over, lambda: None, lambda: None)

        def written() -> str | None:
            said = evidence.cause(self._dir)
            return said if _REFUSAL.search(said) or self._events.read().exiting else None

        with suppress(ReadyTimeoutError):
            return waiting.until("QEMU's last words", written, _INTERVAL)
        return evidence.cause(self._dir)

    def _exchange_keys(
        self, waiting: Waiting, address: Address, kept: HostKeys, folder: Path
    ) -> tuple[HostKeys, float]:
        """Wake the guest up, and have it make host keys that nobody else has.

        Nothing else may be under way: an ``ssh`` that meets another key gives up.
        """
        env = self._host.limactl.env
        with closing(SocketForward(address, folder, {}, env, self._golden.kept.socket)) as forward:
            drift = self._wake(waiting, forward)
        with closing(waiting.until("SSH", lambda: connect(address, kept))) as connection:
            keys = rekey.renew(connection)
        keys.write_known_hosts(folder / "known_hosts", self._name)
        return keys, drift

    def _wake_to_engines(
        self, waiting: Waiting, info: InstanceInfo, address: Address
    ) -> tuple[SocketForward | None, float]:
        """Wake the guest up and have its engines answer, over one forward."""
        forward = self._forward(info, address, self._golden.kept.socket)
        try:
            drift = self._wake(waiting, forward)
            readiness.await_engines(waiting, forward.sockets)
        except BaseException:
            forward.close()
            raise
        if forward.sockets:
            return forward, drift
        forward.close()
        return None, drift

    def _wake(self, waiting: Waiting, forward: SocketForward) -> float:
        kept, host, start = self._golden.kept, f"lima-{self._name}", cidata.read(self._dir)
        drift = waiting.until(
            "waking up",
            lambda: identity.wake(forward.once, kept, host, start, self._left()),
            _INTERVAL,
        )
        forward.forget()
        return drift


def _not_loaded(said: str, *, refused: bool) -> StartError:
    """The error of a QEMU that has not loaded the state, which it may have refused."""
    kind = RefusedStateError if refused and not _OF_THE_HOST.search(said) else StartError
    return kind("QEMU could not load the kept machine", seen=said)


def _waiting_for_state(host: Host) -> Host:
    """The host with a QEMU that starts without a guest."""
    limactl = host.limactl
    variable = f"QEMU_SYSTEM_{host.arch.upper()}"
    command = limactl.env.get(variable) or qemu_binary(host.arch)
    extra = {**limactl.env, variable: f"{command} -incoming defer"}
    return replace(host, limactl=Limactl(limactl.path, limactl.home, limactl.env, extra))
