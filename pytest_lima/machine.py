"""A running VM that is held: the connection to it, and its life until it is let go of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pytest_lima import realfiles
from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import ConnectionLostError, LimaError
from pytest_lima.guest import arguments, hostkeys
from pytest_lima.guest.link import Link
from pytest_lima.guest.login import Login
from pytest_lima.guest.ssh import Connection, Hold, connect
from pytest_lima.lima.forks import Origin
from pytest_lima.lima.host import Host
from pytest_lima.lima.vitals import Vitals, Watch

if TYPE_CHECKING:
    from pytest_lima.instance import Instance

_DEATH_GRACE = 1.5
_LOGIN_GRACE = 2.0
_LONGEST_CHANGE = 7200.0


class States(Protocol):
    """What only the owner of a VM can do with its states: delete it, start it, make another.

    ``let_go`` is called when it is about to be deleted.
    """

    def reset(self, let_go: Callable[[], None]) -> tuple[Boot, Booted]:
        """Start it anew in its first state."""

    def snapshot(self, name: str, booted: Booted) -> None:
        """Keep its state under a name."""

    def restore(self, name: str, let_go: Callable[[], None]) -> tuple[Boot, Booted]:
        """Start it anew in a state that was kept."""

    def clone(self, booted: Booted) -> Instance:
        """Make another that begins in its state."""


class Machine:
    """What ``Instance`` stands on.

    A forked child may use it as another process would: over a connection of its own, while the
    VM and its forwards are the business of the process that has made it.
    """

    def __init__(
        self, host: Host, boot: Boot, booted: Booted, states: States | None = None
    ) -> None:
        """Hold a running VM; ``states`` is None for one that another process has started."""
        self._host = host
        self._states = states
        self._maker = Origin()
        self._link = Link(self._connect)
        self._life = threading.RLock()  # what changes or keeps the VM's state, one after another
        self._steady = threading.Event()  # not while another VM, or boot, takes its place
        self._steady.set()
        self._changer = 0
        self._take(boot, booted)

    def _take(self, boot: Boot, booted: Booted) -> None:
        self._boot = boot
        self._booted = booted
        self._link.put(booted.login)
        self.name = booted.info.name
        self.vmtype = booted.info.vmtype
        self.arch = booted.info.arch
        self.cpus = booted.info.cpus
        self.memory = booted.info.memory
        self.dir = booted.info.dir
        self.user = booted.info.user
        self.ssh_port = booted.address.port
        self.boot_seconds = booted.seconds
        self._look_after()

    def _look_after(self) -> None:
        self._process = Origin()
        self._vitals = Vitals(self.dir)
        self._watch = Watch(self._vitals, self._link.close)

    @realfiles.aside()
    def reboot(self, timeout: float | None = None) -> None:
        """Reboot the guest; returns when it is as ready as after its start.

        Args:
            timeout: Seconds; by default three times those of its cold boot, 60 at least, and
                never more than a boot may take.

        Raises:
            LimaError: This is a forked child of the process that has made this object.
            ProvisionError: A provision script failed at this boot (Lima runs them at each).
            ReadyTimeoutError: It isn't ready in time.
        """
        seconds = None if timeout is None else arguments.timeout(timeout)
        self._refuse_in_child("rebooted")
        with self._life, self._connection() as connection, self._changing():
            booted = self._boot.reboot(self._booted_with(connection), seconds)
            self._watch.end()
            self._take(self._boot, booted)

    @realfiles.aside()
    def reset(self) -> None:
        """Put it back into the state in which it first was ready: disk, memory, processes.

        It is deleted and started anew under its name, warm where that works. Its SSH port changes.

        Raises:
            LimaError: It could not be started again, or other processes use it.
        """
        self._refuse_in_child("reset")
        with self._changing():
            self._take(*self._own("reset").reset(self.disconnect))

    @realfiles.aside()
    def snapshot(self, name: str) -> None:
        """Keep the state it is in, for `restore`: disk, memory, processes.

        It stands still for as long as its memory takes to be written, and runs on. What is kept
        ends with the instance. A state of the same name is replaced.

        Args:
            name: 1 to 40 of ``a-z``, ``0-9``, ``-``, ``_`` and ``.``.

        Raises:
            HostError: A VM of its kind can't be kept: on vz, or with mounts, for one.
            LimaError: It could not be kept, or other processes use it.
        """
        self._refuse_in_child("kept")
        with self._life, self._connection() as connection:
            self._own("kept").snapshot(name, self._booted_with(connection))

    @realfiles.aside()
    def restore(self, name: str) -> None:
        """Put it back into a state that `snapshot` has kept; as often as you like.

        It is deleted and wakes up anew under its name. Its SSH port changes.

        Raises:
            LimaError: No state has that name, it could not be woken up, or other processes use it.
        """
        self._refuse_in_child("restored")
        with self._changing():
            self._take(*self._own("restored").restore(name, self.disconnect))

    @realfiles.aside()
    def clone(self) -> Instance:
        """Another instance, which begins in the state that this one is in.

        It has a name, host name and machine id of its own, and ends with the session, or with
        ``lima_instance``. It shares nothing with this one from then on.

        Raises:
            HostError: A VM of its kind can't be kept: on vz, or with mounts, for one.
            LimaError: It could not be kept or woken up, or other processes use it.
        """
        self._refuse_in_child("cloned")
        with self._life, self._connection() as connection:
            return self._own("cloned").clone(self._booted_with(connection))

    def disconnect(self) -> None:
        """Drop our connection and end the forwards; the VM runs on."""
        self._drop()
        if self._booted.forward:
            self._booted.forward.close()

    def detach(self) -> None:
        """Drop our connection; the VM and its forwards go on for others."""
        if self._maker.is_here:
            # A login that is broken off counts against whoever comes next: all of us have one
            # address there (sshd_config(5): PerSourcePenalties, from OpenSSH 9.8 on).
            self._booted.login.over(_LOGIN_GRACE)
        self._drop()
        if self._booted.forward:
            self._booted.forward.leave()

    def replace(self, boot: Boot, booted: Booted) -> None:
        """Stand for another boot from now on, after the VM had died."""
        with self._changing():
            self._drop()
            self._take(boot, booted)

    @property
    def booted(self) -> Booted:
        """What the last boot has left; for those who share the instance out."""
        return self._booted

    def cause_of_death(self) -> str | None:
        """Why the VM is dead; None while it lives."""
        return self._vitals.cause_of_death()

    def _is_changing(self) -> bool:
        """Whether another thread is at it."""
        return self._changer not in (0, threading.get_ident())

    def _begin_in_child(self) -> None:
        """What the parent's threads were at is none of ours, and its connection is its own."""
        self._life, self._steady, self._changer = threading.RLock(), threading.Event(), 0
        self._steady.set()
        self._link = Link(self._connect)
        self._look_after()

    def _refuse_in_child(self, what: str) -> None:
        if not self._maker.is_here:
            raise LimaError(
                f"{self.name} can't be {what} in a forked child",
                seen=f"{self._maker} has made this object",
                remedy="do that in the process that the child was forked from",
            )

    def _own(self, what: str) -> States:
        self._refuse_in_child(what)
        if self._states is None:
            raise LimaError(
                f"{self.name} can't be {what} from here: another process has started it",
                remedy="ask for a VM of the test's own, with lima_fresh or fresh=True",
            )
        return self._states

    def _drop(self) -> None:
        if self._process.is_here:
            self._watch.end()
            self._link.close()
        if self._maker.is_here and self._booted.starting:
            self._booted.starting.stop()

    def _booted_with(self, connection: Connection) -> Booted:
        return replace(self._booted, login=Login.of(connection))

    def _connect(self, hold: Hold) -> Connection:
        return connect(self._booted.address, self._pinned(), hold)

    def _pinned(self) -> hostkeys.HostKeys:
        """The host keys; those of a guest that was woken up change when somebody reboots it."""
        keys = self._booted.keys
        return keys if keys.lasting else hostkeys.from_known_hosts(self.dir / "pl" / "known_hosts")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let this thread alone have to do with the VM; whoever comes meanwhile waits."""
        with self._life:
            self._changer = threading.get_ident()
            self._steady.clear()
            try:
                yield
            finally:
                self._changer = 0
                self._steady.set()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """The connection; when it breaks because the VM died, that is what is raised.

        While another thread reboots it, resets it or restores a state, this waits.
        """
        if not self._process.is_here:
            self._begin_in_child()
        if self._is_changing():
            self._steady.wait(_LONGEST_CHANGE)
        self._vitals.check()
        booted = self._booted
        try:
            yield self._link.get()
        except ConnectionLostError as error:
            if self._is_changing() or self._booted is not booted:
                raise ConnectionLostError(
                    f"{self.name} was rebooted, reset or restored by another thread meanwhile",
                    seen=error.seen,
                    remedy="have that thread wait for those that use it",
                ) from error
            # A guest that goes down drops connections a moment before its VM ends.
            self._watch.died.wait(_DEATH_GRACE)
            self._vitals.check(error)
            raise
