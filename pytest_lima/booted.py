"""A ready guest, and what holds it."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.login import Login
from pytest_lima.guest.sockets import SocketForward
from pytest_lima.guest.ssh import Connection
from pytest_lima.lima import process
from pytest_lima.lima.info import InstanceInfo


@dataclass(frozen=True)
class Booted:
    """A ready guest and what holds it.

    Attributes:
        info: As limactl saw it once its VM ran.
        address: The guest's sshd.
        keys: The pinned host keys.
        login: Made, or on its way where it was seen to be ready without.
        forward: The engine sockets; None where no engine was asked for.
        starting: ``limactl start``, which may still be waiting for its own idea of ready; None
            where another process has started it.
        seconds: From ``limactl create`` to ready.
        booted_as: The instances that it has booted as, in that order. It is another's at first
            where its memory is.
        cold_seconds: How long its boot took when it last was seen to boot from nothing, which one
            that wakes up wasn't; None where that isn't known.
    """

    info: InstanceInfo
    address: Address
    keys: HostKeys
    login: Login
    forward: SocketForward | None
    starting: process.Child | None
    seconds: float
    booted_as: tuple[str, ...]
    cold_seconds: float | None = None

    @property
    def connection(self) -> Connection:
        """The connection, waited for.

        Raises:
            LimaError: Whatever kept it from being made.
        """
        return self.login.get()

    def close(self) -> None:
        """Drop what we hold of it; the VM runs on."""
        self.login.close()
        if self.forward:
            self.forward.close()
        if self.starting:
            self.starting.stop()
