"""A running VM that is held: the connection to it, and its life until it is let go of."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, Protocol, Self, TypeVar

from pytest_lima import realfiles, realtime
from pytest_lima.errors import ConnectionLostError, InstanceDiedError, LimaError
from pytest_lima.guest import arguments, hostkeys
from pytest_lima.guest.link import Link
from pytest_lima.guest.login import Login
from pytest_lima.guest.ssh import Connection, Hold, connect
from pytest_lima.lima.forks import Origin
from pytest_lima.lima.vitals import Vitals, Watch
from pytest_lima.ready import ReadyVM

Held_co = TypeVar("Held_co", covariant=True)

_DEATH_GRACE = 1.5
_LOGIN_GRACE = 2.0
_LONGEST_CHANGE = 7200.0


class _End(NamedTuple):
    """How we have ended a VM ourselves, and what helps whoever uses it afterwards."""

    how: str
    remedy: str


class Owner(Protocol[Held_co]):
    """Who answers for a VM: it alone reboots it, deletes it, starts it anew, makes another."""

    def reboot(self, vm: ReadyVM, timeout: float | None) -> ReadyVM:
        """Reboot the guest, within ``timeout`` seconds."""

    def reset(self, held: Machine) -> ReadyVM:
        """Start it anew in its first state; it is disconnected when it is to be deleted."""

    def restore(self, held: Machine, name: str) -> ReadyVM:
        """Start it anew in a state that was kept."""

    def snapshot(self, vm: ReadyVM, name: str) -> None:
        """Keep its state under a name."""

    def clone(self, vm: ReadyVM) -> Held_co:
        """Make another that begins in its state."""


class Machine:
    """What ``Instance`` stands on.

    What begins with an underscore is for who owns the VM or shares it out, not for its user.

    A forked child may use it as another process would: over a connection of its own, while the
    VM and its forwards are the business of the process that has made it.
    """

    def __init__(self, vm: ReadyVM, owner: Owner[Self]) -> None:
        """Hold a running VM, for which ``owner`` answers."""
        self._owner = owner
        self._maker = Origin()
        self._link = Link(self._connect)
        self._life = threading.RLock()  # what changes or keeps the VM's state, one after another
        self._steady = threading.Event()  # not while another VM, or boot, takes its place
        self._steady.set()
        self._changer = 0
        self._end: _End | None = None
        self._take(vm)

    def _take(self, vm: ReadyVM) -> None:
        self._ready = vm
        self._end = None
        self._link.put(vm.login)
        self.name = vm.info.name
        self.vmtype = vm.info.vmtype
        self.arch = vm.info.arch
        self.cpus = vm.info.cpus
        self.memory = vm.info.memory
        self.dir = vm.info.dir
        self.user = vm.info.user
        self.ssh_port = vm.address.port
        self.boot_seconds = vm.seconds
        self._look_after()

    def _look_after(self) -> None:
        self._process = Origin()
        self._vitals = Vitals(self.dir)
        self._watch = Watch(self._vitals, self._link.close)

    @realfiles.aside()
    def reboot(self, timeout: float | None = None) -> None:
        """Reboot the guest, and return when it is as ready as after its start.

        Args:
            timeout: Seconds. The default is three times the duration of its cold boot, at least
                60, and at most the time limit of a boot.

        Raises:
            LimaError: This process is a forked child of the one that made this object.
            ProvisionError: A provision script failed (Lima runs them at each boot).
            ReadyTimeoutError: The guest was not ready in time.
        """
        seconds = None if timeout is None else arguments.timeout(timeout)
        self._refuse_in_child("rebooted")
        with self._life, self._connection() as connection, self._changing("reboot"):
            vm = self._owner.reboot(self._ready_over(connection), seconds)
            self._watch.end()
            self._take(vm)

    @realfiles.aside()
    def reset(self) -> None:
        """Put the VM back into its first ready state: disk, memory, processes.

        It is deleted and started again under its name, warm where that works. Its SSH port
        changes.

        Raises:
            LimaError: The VM could not be started again, or other processes use it.
        """
        self._refuse_in_child("reset")
        with self._changing("reset"):
            self._take(self._owner.reset(self))

    @realfiles.aside()
    def snapshot(self, name: str) -> None:
        """Save the VM's current state for `restore`: disk, memory, processes.

        The VM is paused while its memory is written. The snapshot is deleted with the instance. A
        snapshot of the same name is replaced.

        Args:
            name: 1 to 40 of ``a-z``, ``0-9``, ``-``, ``_`` and ``.``.

        Raises:
            HostError: The state of such a VM can't be saved, for example with vz or mounts.
            LimaError: The state could not be saved, or other processes use the VM.
        """
        self._refuse_in_child("snapshotted")
        with self._life, self._connection() as connection:
            self._owner.snapshot(self._ready_over(connection), name)

    @realfiles.aside()
    def restore(self, name: str) -> None:
        """Put the VM back into a state that `snapshot` saved, as often as you like.

        It is deleted and resumed under its name. Its SSH port changes.

        Raises:
            LimaError: No snapshot has that name, it could not be resumed, or other processes use
                the VM.
        """
        self._refuse_in_child("restored")
        with self._changing("restore"):
            self._take(self._owner.restore(self, name))

    @realfiles.aside()
    def clone(self) -> Self:
        """Make another instance that begins in the current state of this one.

        It has its own name, host name and machine id, and shares nothing with this one from then
        on. It ends with the session, or with the block of ``lima_instance``.

        Raises:
            HostError: The state of such a VM can't be saved, for example with vz or mounts.
            LimaError: The state could not be saved or resumed, or other processes use the VM.
        """
        self._refuse_in_child("cloned")
        with self._life, self._connection() as connection:
            return self._owner.clone(self._ready_over(connection))

    def disconnect(self) -> None:
        """Close the plugin's SSH connection and its socket forwards. The VM runs on."""
        self._note_end()
        self._drop()
        if self._ready.forward:
            self._ready.forward.close()

    def _detach(self) -> None:
        """Drop our connection; the VM and its forwards go on for others."""
        self._note_end()
        if self._maker.is_here:
            # A login that is broken off counts against whoever comes next: all of us have one
            # address there (sshd_config(5): PerSourcePenalties, from OpenSSH 9.8 on).
            self._ready.login.over(_LOGIN_GRACE)
        self._drop()
        if self._ready.forward:
            self._ready.forward.leave()

    def _replace(self, vm: ReadyVM) -> None:
        """Stand for another boot from now on, after the VM had died."""
        with self._changing("replace"):
            self._drop()
            self._take(vm)

    def _cause_of_death(self) -> str | None:
        """Why the VM is dead; None while it lives."""
        return self._vitals.cause_of_death()

    @property
    def _is_changing(self) -> bool:
        """Whether another thread reboots it, resets it or restores a state now."""
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
                seen=f"{self._maker} made this object",
                remedy="do that in the process from which the child was forked",
            )

    def _note_end(self) -> None:
        self._end = _End(
            f"was given back at {realtime.time_of_day()}, and has ended since",
            "use it in the test, fixture or `with` that it was made for, and not afterwards",
        )

    def _check_alive(self, reason: LimaError | None = None) -> None:
        """Raise if it is dead, be it by our own hand.

        Raises:
            InstanceDiedError: It is.
        """
        if self._end is not None and self._vitals.cause_of_death() is not None:
            raise InstanceDiedError(
                f"the VM {self.name} {self._end.how}", remedy=self._end.remedy
            ) from reason
        self._vitals.check(reason)

    def _drop(self) -> None:
        if self._process.is_here:
            self._watch.end()
            self._link.close()
        if self._maker.is_here and self._ready.starting:
            self._ready.starting.stop()

    def _ready_over(self, connection: Connection) -> ReadyVM:
        return replace(self._ready, login=Login.of(connection))

    def _connect(self, hold: Hold) -> Connection:
        return connect(self._ready.address, self._pinned(), hold)

    def _pinned(self) -> hostkeys.HostKeys:
        """The host keys; those of a guest that was woken up change when somebody reboots it."""
        keys = self._ready.keys
        return keys if keys.lasting else hostkeys.from_known_hosts(self.dir / "pl" / "known_hosts")

    @contextmanager
    def _changing(self, call: str) -> Iterator[None]:
        """Let this thread alone have to do with the VM; whoever comes meanwhile waits."""
        with self._life:
            self._changer = threading.get_ident()
            self._steady.clear()
            before = self._end
            try:
                yield
            except BaseException as error:
                if self._end is not before:  # it was let go of, to be deleted
                    self._end = _End(
                        f"was ended by a {call}() that was broken off at "
                        f"{realtime.time_of_day()}, by {type(error).__name__}",
                        f"see what has ended that {call}(); --lima-recreate=1 gives later tests a "
                        "new VM",
                    )
                raise
            finally:
                self._changer = 0
                self._steady.set()

    def _await_steady(self) -> None:
        """Wait while another thread reboots it, resets it or restores a state."""
        if not self._process.is_here:
            self._begin_in_child()
        if self._is_changing:
            self._steady.wait(_LONGEST_CHANGE)

    @contextmanager
    def _connection(self, deadline: float = math.inf) -> Iterator[Connection]:
        """The connection; when it breaks because the VM died, that is what is raised.

        While another thread reboots it, resets it or restores a state, this waits.

        Args:
            deadline: How long a login is waited for, on ``realtime.monotonic``'s clock.

        Raises:
            LoginTimeoutError: It takes longer.
        """
        self._await_steady()
        self._check_alive()
        before = self._ready
        try:
            yield self._link.get(deadline)
        except ConnectionLostError as error:
            if self._is_changing or self._ready is not before:
                raise ConnectionLostError(
                    f"another thread rebooted, reset or restored {self.name} meanwhile",
                    seen=error.seen,
                    remedy="let that thread wait for the threads that use the VM",
                ) from error
            # A guest that goes down drops connections a moment before its VM ends.
            self._watch.died.wait(_DEATH_GRACE)
            self._check_alive(error)
            raise
