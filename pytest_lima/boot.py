"""From a filled template to a guest that is ready: create, start, watch, connect, check.

Whoever calls this has recorded the instance in the ledger before, and deletes it when
anything here raises, Ctrl-C included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.booted import Booted
from pytest_lima.errors import (
    AcceleratorError,
    CommandError,
    CommandTimeoutError,
    ConnectionLostError,
    LimaError,
    StartError,
)
from pytest_lima.guest import clock, hostkeys, pinning, power, readiness
from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.login import Login
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.sockets import SocketForward
from pytest_lima.guest.ssh import Connection, connect
from pytest_lima.guest.startup import NotBegunError
from pytest_lima.lima import causes, engines, evidence, logs, paths, process
from pytest_lima.lima.events import EventLog
from pytest_lima.lima.host import Host
from pytest_lima.lima.info import InstanceInfo
from pytest_lima.lima.qmp import Monitor, guest_address
from pytest_lima.lima.standstill import Standstill
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.lima.vitals import Vitals
from pytest_lima.observer import Observer

_LOCAL_INTERVAL = 0.02


class Boot:
    """One cold boot of one instance."""

    _doing = "booting"

    def __init__(
        self, host: Host, name: str, filled: FilledTemplate, timeout: float, observer: Observer
    ) -> None:
        """Prepare to boot ``name``; ``timeout`` seconds for all of it."""
        self._host = host
        self._name = name
        self._filled = filled
        self._observer = observer
        self._timeout = timeout
        self._begun = realtime.monotonic()
        self._deadline = self._begun + timeout
        self._dir = host.limactl.home / name
        self._events = EventLog(self._dir / logs.EVENTS)
        self._standstill = Standstill(self._dir)
        self._child: process.Child | None = None
        # The instance that the guest has booted as, whose name paths in it may hold.
        self._inside = name

    def create(self, template: Path, edits: tuple[str, ...]) -> None:
        """Have limactl make the instance from ``template``, with ``--set`` and ``--param``.

        Raises:
            StartError: limactl couldn't.
        """
        self._observer.phase(self._name, "creating")
        self._host.limactl.create(self._name, template, *edits, timeout=self._left())

    def start(self, then: Callable[[Booted], None] = lambda _: None) -> Booted:
        """Start the instance and make it ready.

        Args:
            then: Gets it before it is announced as ready.

        Raises:
            StartError: limactl couldn't start it.
            ProvisionError: cloud-init or a provision script failed.
            ReadyTimeoutError: Not ready in time.
            HostKeyError: Something else answers in its place.
        """
        self._observer.phase(self._name, self._doing)
        folder = paths.our_folder(self._dir)
        # Lima may wait on behind us: its time is the whole, whatever the deadline of ours.
        self._child = self._host.limactl.start(
            self._name, folder / evidence.START_LOG, self._timeout
        )
        try:
            booted = self._timed(self._make_ready(self._child, folder))
            try:
                then(booted)
            except BaseException:
                booted.close()
                raise
        except BaseException as error:
            self._child.stop()
            if isinstance(error, LimaError):
                error.log = error.log or str(evidence.keep(self._host.limactl.home, self._name))
            raise
        seconds = realtime.monotonic() - self._begun
        self._observer.ready(self._name, seconds)
        return replace(booted, seconds=seconds)

    def reboot(self, booted: Booted, timeout: float | None) -> Booted:
        """Reboot the guest and wait until it is ready again.

        Its instance id stays, so cloud-init leaves the host keys and the pin holds. Only a guest
        that was woken up boots with a new one, and gets new keys; and another address, if its
        memory was another instance's.

        Raises:
            InstanceDiedError: The VM died on the way.
            ProvisionError: A provision script failed this time.
            ReadyTimeoutError: Not ready within ``timeout`` seconds, or those of ``power.patience``.
        """
        patience = power.patience(
            timeout, booted.cold_seconds, self._host.accelerator.timeout_factor, self._timeout
        )
        self._begun = realtime.monotonic()
        self._deadline = self._begun + patience.seconds
        with patience.explained(self._name):
            return self._reboot(booted)

    def _reboot(self, booted: Booted) -> Booted:
        before, was = power.boot_id(booted.connection), booted.booted_as
        if self._name not in booted.booted_as:
            booted = replace(booted, booted_as=(*booted.booted_as, self._name))
            self._lead_ssh_to(guest_address(booted.booted_as), booted.address.port)
        printed = logs.size(logs.console(self._dir))
        # From here on: a kernel may panic early. How `limactl start` ended says nothing any more.
        waiting = Waiting(self._deadline, Vitals(self._dir).look, self._tick)
        self._observer.phase(self._name, "rebooting")
        try:
            power.reboot(booted.connection)
        except LimaError:
            if booted.booted_as != was:  # it stays where it is
                self._lead_ssh_to(guest_address(was), booted.address.port)
            raise
        self._inside = self._name
        if booted.forward:
            booted.forward.close()
        keys = booted.keys
        if not keys.lasting:
            keys = waiting.until(
                pinning.ON_CONSOLE, lambda: hostkeys.from_console(self._dir, printed)
            )
            keys.write_known_hosts(paths.our_folder(self._dir) / "known_hosts", self._name)

        def reconnect() -> Connection | None:
            connection = connect(booted.address, keys)
            try:
                if power.boot_id(connection) != before:
                    return connection
            except (ConnectionLostError, CommandError, CommandTimeoutError, NotBegunError):
                pass  # it was still on its way down, and ends sessions as it likes
            connection.close()
            return None

        connection = waiting.until("SSH after the reboot", reconnect)
        forward = self._settle(waiting, booted.info, booted.address, connection)
        seconds = realtime.monotonic() - self._begun
        self._observer.ready(self._name, seconds)
        return replace(
            booted, keys=keys, login=Login.of(connection), forward=forward, seconds=seconds
        )

    def _timed(self, booted: Booted) -> Booted:
        """With how long its boot has taken, for what is kept of it."""
        return replace(booted, cold_seconds=realtime.monotonic() - self._begun)

    def _make_ready(self, child: process.Child, folder: Path) -> Booted:
        waiting = self._waiting()
        info, address = self._locate(waiting)
        connection, keys = self._connect(waiting, address)
        keys.write_known_hosts(folder / "known_hosts", self._name)
        forward = self._settle(waiting, info, address, connection)
        return Booted(info, address, keys, Login.of(connection), forward, child, 0.0, (self._name,))

    def _locate(self, waiting: Waiting) -> tuple[InstanceInfo, Address]:
        port = self._ssh_port(waiting)
        info = self._host.limactl.inspect(self._name)
        if info is None:
            raise StartError(f"limactl does not know {self._name} any more")
        return info, self._address(port, info.user)

    def _ssh_port(self, waiting: Waiting) -> int:
        return waiting.until(
            "SSH port from Lima", lambda: self._events.read().ssh_port or None, _LOCAL_INTERVAL
        )

    def _address(self, port: int, user: str) -> Address:
        return Address(port, user, self._host.limactl.home / "_config" / "user")

    def _settle(
        self, waiting: Waiting, info: InstanceInfo, address: Address, connection: Connection
    ) -> SocketForward | None:
        """Everything between a login and ready."""
        folder = paths.evidence_folder(self._host.limactl.home)
        try:
            self._observer.phase(self._name, "provisioning")
            readiness.await_provisioned(
                connection,
                waiting,
                self._filled.provision,
                folder / f"{self._name}-cloud-init.log",
            )
            clock.correct(connection)
            if self._filled.sockets:
                awaited = " and ".join(self._filled.sockets)
                self._observer.phase(self._name, f"waiting for {awaited}")
            return self._engines(waiting, info, address)
        except BaseException:
            connection.close()
            raise

    def _connect(self, waiting: Waiting, address: Address) -> tuple[Connection, HostKeys]:
        connection, keys = pinning.first_login(
            waiting, address, self._dir, lambda: self._events.read().running
        )
        if keys.source == hostkeys.FIRST_CONNECTION:
            self._observer.warn(
                f"{self._name} printed no SSH host key on its console; the {', '.join(keys.keys)} "
                f"key that answered first on 127.0.0.1:{address.port} is trusted for this run"
            )
        return connection, keys

    def _engines(
        self, waiting: Waiting, info: InstanceInfo, address: Address
    ) -> SocketForward | None:
        if not self._filled.sockets:
            return None
        forward = self._forward(info, address)
        try:
            readiness.await_engines(waiting, forward.sockets)
        except BaseException:
            forward.close()
            raise
        return forward

    def _forward(
        self, info: InstanceInfo, address: Address, once: str | None = None
    ) -> SocketForward:
        """Forward the engines' sockets, and another that is wanted ``once``."""
        sockets = {
            name: engines.expand(path, info.config["user"], self._inside, info.config.get("param"))
            for name, path in self._filled.sockets.items()
        }
        folder = paths.our_folder(self._dir)
        return SocketForward(address, folder, sockets, self._host.limactl.env, once)

    def _lead_ssh_to(self, guest_address: str, port: int) -> None:
        with Monitor(self._dir / "qmp.sock") as monitor:
            monitor.lead_ssh_to(port, guest_address)

    def _waiting(self) -> Waiting:
        return Waiting(self._deadline, self._check_alive, self._tick)

    def _tick(self) -> None:
        self._observer.tick(logs.tail(logs.console(self._dir), 1))

    def _left(self) -> float:
        return max(1.0, self._deadline - realtime.monotonic())

    def _check_alive(self) -> None:
        if panic := evidence.panic(self._dir):
            raise StartError(f"the kernel of {self._name} has panicked", seen=panic,
                             remedy="see its console in the log; try another image")  # fmt: skip
        stopped = evidence.accelerator_failure(self._dir) or self._standstill.cause()
        status = self._events.read()
        code = self._child.poll() if self._child else None
        is_well = code in (None, 0) or status.lacks_agent_alone
        if not stopped and not status.exiting and is_well:
            return
        seen = (stopped or evidence.cause(self._dir) or "; ".join(status.errors)
                or f"exit status {code}")  # fmt: skip
        broken = self._host.accelerator.is_hardware and causes.blames_accelerator(seen)
        raise (AcceleratorError if broken else StartError)(
            f"the VM {self._name} did not start",
            ran=f"limactl start {self._name}",
            seen=seen,
            remedy=causes.remedy(seen, "see what the host agent and QEMU say in the log"),
        )
