"""From a filled template to a guest that is ready: create, start, watch, connect, check.

Whoever calls this has recorded the instance in the ledger before, and deletes it when
anything here raises, Ctrl-C included.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_lima.errors import (
    CommandError,
    CommandTimeoutError,
    ConnectionLostError,
    InstanceDiedError,
    LimaError,
    StartError,
)
from pytest_lima.guest import hostkeys, readiness
from pytest_lima.guest.commands import run
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.sockets import SocketForward
from pytest_lima.guest.ssh import Address, Connection, connect
from pytest_lima.lima import limactl, logs, paths, process
from pytest_lima.lima.events import EventLog
from pytest_lima.lima.host import Host
from pytest_lima.lima.limactl import InstanceInfo
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.observer import Observer

# cloud-init prints the keys about a second after Lima's marker; with none by then the image
# doesn't print any.
_KEYS_GRACE = 15.0
_START_LOG = "limactl-start.log"


@dataclass(frozen=True)
class Booted:
    """A ready guest and what holds it.

    Attributes:
        info: As limactl saw it once its VM ran.
        address: The guest's sshd.
        keys: The pinned host keys.
        connection: Logged in.
        forward: The engine sockets; None where no engine was asked for.
        starting: ``limactl start``, which may still be waiting for its own idea of ready.
        seconds: From ``limactl create`` to ready.
    """

    info: InstanceInfo
    address: Address
    keys: HostKeys
    connection: Connection
    forward: SocketForward | None
    starting: process.Child
    seconds: float


class Boot:
    """One cold boot of one instance."""

    def __init__(
        self, host: Host, name: str, filled: FilledTemplate, timeout: float, observer: Observer
    ) -> None:
        """Prepare to boot ``name``; ``timeout`` seconds for all of it."""
        self._host = host
        self._name = name
        self._filled = filled
        self._observer = observer
        self._timeout = timeout
        self._begun = time.monotonic()
        self._deadline = self._begun + timeout
        self._dir = host.limactl.home / name
        self._events = EventLog(self._dir / "ha.stdout.log")
        self._child: process.Child | None = None

    def create(self, template: Path, edits: tuple[str, ...]) -> None:
        """Have limactl make the instance from ``template``, with ``--set`` and ``--param``.

        Raises:
            StartError: limactl couldn't.
        """
        self._observer.phase(self._name, "creating")
        self._host.limactl.create(self._name, template, *edits, timeout=self._left())

    def start(self) -> Booted:
        """Start the instance and make it ready.

        Raises:
            StartError: limactl couldn't start it.
            ProvisionError: cloud-init or a provision script failed.
            ReadyTimeoutError: Not ready in time.
            HostKeyError: Something else answers in its place.
        """
        self._observer.phase(self._name, "booting")
        folder = paths.our_folder(self._dir)
        self._child = self._host.limactl.start(self._name, folder / _START_LOG, self._left())
        try:
            return self._make_ready(self._child, folder)
        except BaseException as error:
            self._child.stop()
            if isinstance(error, LimaError):
                error.log = error.log or str(self._keep_evidence())
            raise

    def reboot(self, booted: Booted, timeout: float | None) -> Booted:
        """Reboot the guest and wait until it is ready again.

        Its instance id stays, so cloud-init leaves the host keys and the pin holds.

        Raises:
            ProvisionError: A provision script failed this time.
            ReadyTimeoutError: Not ready within ``timeout`` seconds, by default the first boot's.
        """
        self._begun = time.monotonic()
        self._deadline = self._begun + (timeout or self._timeout)
        before = _boot_id(booted.connection)
        self._observer.phase(self._name, "rebooting")
        _ask_to_reboot(booted.connection)
        if booted.forward:
            booted.forward.close()
        waiting = self._waiting()

        def reconnect() -> Connection | None:
            connection = connect(booted.address, booted.keys)
            try:
                if _boot_id(connection) != before:
                    return connection
            except (ConnectionLostError, CommandError, CommandTimeoutError):
                pass  # it was still on its way down, and ends sessions as it likes
            connection.close()
            return None

        connection = waiting.until("SSH after the reboot", reconnect)
        forward = self._settle(waiting, booted.info, booted.address, connection)
        seconds = time.monotonic() - self._begun
        self._observer.ready(self._name, seconds)
        return replace(booted, connection=connection, forward=forward, seconds=seconds)

    def _make_ready(self, child: process.Child, folder: Path) -> Booted:
        waiting = self._waiting()
        port = waiting.until("SSH port from Lima", lambda: self._events.read().ssh_port or None)
        info = self._host.limactl.inspect(self._name)
        if info is None:
            raise StartError(f"limactl does not know {self._name} any more")
        address = Address(port, info.user, self._host.limactl.home / "_config" / "user")
        connection, keys = self._connect(waiting, address)
        keys.write_known_hosts(folder / "known_hosts", self._name)
        forward = self._settle(waiting, info, address, connection)
        seconds = time.monotonic() - self._begun
        self._observer.ready(self._name, seconds)
        return Booted(info, address, keys, connection, forward, child, seconds)

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
            readiness.set_clock(connection)
            return self._engines(waiting, info, address)
        except BaseException:
            connection.close()
            raise

    def _connect(self, waiting: Waiting, address: Address) -> tuple[Connection, HostKeys]:
        keys = waiting.until("SSH host keys on the console", self._keys_or_give_up())
        if keys.keys:
            return waiting.until("SSH", lambda: connect(address, keys)), keys
        connection = waiting.until("SSH", lambda: connect(address, None))
        kind, key = connection.host_key.split()
        self._observer.warn(
            f"{self._name} printed no SSH host key on its console; the {kind} key that "
            f"answered first on 127.0.0.1:{address.port} is trusted for this run"
        )
        return connection, HostKeys({kind: key}, "the first connection")

    def _keys_or_give_up(self) -> Callable[[], HostKeys | None]:
        """Look for the keys; an empty set of them when the image evidently prints none."""
        lima_ready: list[float] = []

        def look() -> HostKeys | None:
            if self._events.read().running and not lima_ready:
                lima_ready.append(time.monotonic())
            keys = hostkeys.from_console(self._dir)
            if keys is None and lima_ready and time.monotonic() - lima_ready[0] > _KEYS_GRACE:
                return HostKeys({}, "nowhere")
            return keys

        return look

    def _engines(
        self, waiting: Waiting, info: InstanceInfo, address: Address
    ) -> SocketForward | None:
        if not self._filled.sockets:
            return None
        self._observer.phase(self._name, "waiting for " + " and ".join(self._filled.sockets))
        sockets = {name: _expand(path, info) for name, path in self._filled.sockets.items()}
        folder = paths.our_folder(self._dir)
        forward = SocketForward(address, folder, sockets, self._host.limactl.env)
        try:
            readiness.await_engines(waiting, forward.sockets)
        except BaseException:
            forward.close()
            raise
        return forward

    def _waiting(self) -> Waiting:
        return Waiting(self._deadline, self._check_alive, self._tick)

    def _tick(self) -> None:
        self._observer.tick(logs.tail(logs.console(self._dir), 1))

    def _left(self) -> float:
        return max(1.0, self._deadline - time.monotonic())

    def _check_alive(self) -> None:
        status = self._events.read()
        code = self._child.poll() if self._child else None
        if not status.exiting and code in (None, 0):
            return
        raise StartError(
            f"the VM {self._name} did not start",
            ran=f"limactl start {self._name}",
            seen=self._cause() or "; ".join(status.errors) or f"exit status {code}",
            remedy="see the host agent's log; `pytest --lima-accel=tcg` rules out the accelerator",
        )

    def _cause(self) -> str:
        """QEMU's own words, which Lima has in its log only, else limactl's."""
        agent = logs.read(self._dir / logs.HOST_AGENT)
        said = [line for line in agent.splitlines() if "qemu[stderr]" in line]
        return limactl.messages(said[-3:]) or limactl.complaint_of(
            logs.read(self._dir / "pl" / _START_LOG)
        )

    def _keep_evidence(self) -> Path:
        """Copy the logs of this instance, soon to be deleted, into one file."""
        target = paths.evidence_folder(self._host.limactl.home) / f"{self._name}.log"
        parts = (self._dir / logs.HOST_AGENT, logs.console(self._dir),
                 self._dir / "pl" / _START_LOG)  # fmt: skip
        target.write_text("".join(f"==> {part.name}\n{logs.read(part)}\n" for part in parts))
        return target


def check_alive(info: InstanceInfo, cause: LimaError | None) -> None:
    """Raise if the VM's process is gone, with what its console said last.

    Raises:
        InstanceDiedError: It is.
    """
    try:
        os.kill(info.driver_pid, 0)
    except ProcessLookupError:
        raise InstanceDiedError(
            f"the VM {info.name} has died",
            seen=logs.tail(logs.console(info.dir), 5) or "nothing on its console",
            remedy="look at its console for a panic, at the host's memory for an OOM kill",
            log=logs.console(info.dir),
        ) from cause


def _expand(path: str, info: InstanceInfo) -> str:
    user = info.config["user"]
    known = {"UID": user.get("uid"), "User": user.get("name"), "Home": user.get("home")}
    for name, value in known.items():
        path = path.replace("{{." + name + "}}", str(value))
    return path


def _boot_id(connection: Connection) -> str:
    return run(connection, "cat /proc/sys/kernel/random/boot_id").stdout.strip()


def _ask_to_reboot(connection: Connection) -> None:
    """Returns when the guest has taken it; the connection may end while it answers."""
    try:
        result = run(connection, "systemctl reboot || reboot", user="root", check=False)
        if 0 < result.returncode <= 128:  # above, the guest's end has ended the shell too
            raise CommandError(result)
    except ConnectionLostError:
        pass
    finally:
        connection.close()
