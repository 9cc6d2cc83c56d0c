"""VMs that are made ready while tests run, and stand still until a test wants a fresh one.

A VM that stands still holds its memory and uses no processor. Each is recorded as any other, so
a killed run leaves none. Nothing of it is shown until a test gets it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from pytest_lima import realtime
from pytest_lima.errors import LimaError
from pytest_lima.instance import Instance
from pytest_lima.lima import paths
from pytest_lima.lima.qmp import Monitor
from pytest_lima.observer import Observer, Relay
from pytest_lima.ownership.making import Maker
from pytest_lima.ownership.starting import Order

_SETTLING = 20.0
_LOOK = 0.1
_PATIENCE = 5.0

MakerOf = Callable[[Observer], Maker]
Wake = Callable[[Order, Instance], None]


class Standby:
    """Those of one process."""

    def __init__(
        self,
        size: int,
        maker_of: MakerOf,
        wake: Wake,
        adopt: Callable[[Order, Instance], None],
        discard: Callable[[str], None],
        observer: Observer,
    ) -> None:
        """Hold ``size`` of a kind at most.

        Args:
            size: How many.
            maker_of: A maker that tells an observer of ours.
            wake: Takes up one that stood still.
            adopt: Gets each that is taken.
            discard: Removes one by its name.
            observer: Told of those that are taken.
        """
        self._size = size
        self._maker_of = maker_of
        self._wake = wake
        self._adopt = adopt
        self._discard = discard
        self._observer = observer
        self._lock = threading.Lock()  # held for a look at these
        self._spares: list[Spare] = []

    def take(self, order: Order) -> Instance | None:
        """One of this kind, ready; None where there is none.

        One that isn't what it should be is removed, with a warning.
        """
        while (spare := self._claimed(order.filled.key)) is not None:
            try:
                instance = spare.take()
            except (LimaError, OSError) as error:
                self._observer.failed(spare.order.name)
                self._observer.warn(
                    f"the standby {spare.order.name} is not used and another VM is started: {error}"
                )
                instance = None
            if instance is not None:
                self._adopt(spare.order, instance)
                self._forget(spare)
                return instance
            self._remove(spare)  # a problem of that is told again when all is closed
        return None

    def fill(self, order: Order, wanted: int) -> None:
        """Begin to make as many of this kind as later tests want, ``size`` at most."""
        with self._lock:
            there = sum(spare.key == order.filled.key for spare in self._spares)
            for _ in range(min(self._size, wanted) - there):
                named = replace(order, name=paths.instance_name())
                self._spares.append(Spare(named, self._maker_of, self._wake, self._observer))

    def close(self) -> list[LimaError]:
        """End all; returns what kept some from being removed."""
        with self._lock:
            spares = list(self._spares)
        for spare in spares:
            spare.give_up()
        problems = [self._remove(spare) for spare in spares]
        return [problem for problem in problems if problem is not None]

    def _claimed(self, key: str) -> Spare | None:
        """One that no other test gets; it stays in our list until it is another's or gone."""
        with self._lock:
            for spare in self._spares:
                if spare.key == key and not spare.claimed:
                    spare.claimed = True
                    return spare
        return None

    def _forget(self, spare: Spare) -> None:
        with self._lock:
            self._spares.remove(spare)

    def _remove(self, spare: Spare) -> LimaError | None:
        spare.end()
        try:
            self._discard(spare.order.name)
        except LimaError as error:
            return error
        self._forget(spare)
        return None


class Spare:
    """One VM, which a thread makes ready and has stand still.

    Attributes:
        order: What it is.
        key: Of its kind.
        claimed: Whether a test is about to get it, or was.
    """

    def __init__(self, order: Order, maker_of: MakerOf, wake: Wake, observer: Observer) -> None:
        """Begin to make it."""
        self.order = order
        self.key = order.filled.key
        self.claimed = False
        self._observer = observer
        self._aside = Aside(observer)
        self._maker = maker_of(self._aside)
        self._wake = wake
        self._instance: Instance | None = None
        self._problem: BaseException | None = None
        self._no_room = False
        self._still = False
        self._wanted = threading.Event()
        # A daemon: whatever it is at, its record tells the reaper what to delete.
        self._thread = threading.Thread(target=self._make, name="pytest-lima-standby", daemon=True)
        self._thread.start()

    def take(self) -> Instance | None:
        """Have it run; None where there was no room for it.

        Raises:
            LimaError: It could not be made, or isn't what it was.
        """
        begun = realtime.monotonic()
        deadline = begun + self.order.timeout + _SETTLING
        self._wanted.set()
        self._aside.begun.wait(deadline - realtime.monotonic())
        if self._no_room:
            return None
        self._observer.phase(self.order.name, "taking the standby")
        self._thread.join(max(0.0, deadline - realtime.monotonic()))
        if self._thread.is_alive():
            raise LimaError("it is not ready in time")
        self._aside.join()
        if self._problem is not None:
            raise self._problem
        if self._still and self._instance is not None:
            _order_monitor(self._instance, "cont")
            self._wake(self.order, self._instance)
        self._observer.ready(self.order.name, realtime.monotonic() - begun)
        return self._instance

    def give_up(self) -> None:
        """End the making of it at its next step."""
        self._wanted.set()
        self._aside.give_up()

    def end(self) -> None:
        """Let go of it, so that it can be removed; which ends whatever the thread waits for."""
        self.give_up()
        self._thread.join(_PATIENCE)
        if self._instance is not None:
            self._instance.disconnect()

    def _make(self) -> None:
        try:
            self._instance = self._maker.spare(self.order)
            self._no_room = self._instance is None
            if self._instance is not None:
                self._stand_still(self._instance)
        except BaseException as error:
            self._problem = error  # raised where it is taken
        finally:
            self._aside.begun.set()

    def _stand_still(self, instance: Instance) -> None:
        """Have it stand still, once Lima has looked into it; not if it is wanted already."""
        starting, deadline = instance.booted.starting, realtime.monotonic() + _SETTLING
        while starting is not None and starting.poll() is None and realtime.monotonic() < deadline:
            if self._wanted.wait(_LOOK):
                return
        instance.detach()
        self._still = True
        _order_monitor(instance, "stop")


class Aside(Relay):
    """Keeps what it is told to itself until a test gets the VM; stops the making of it on demand.

    pytest captures output for the whole process, so nothing is written by a thread of ours.

    Attributes:
        begun: Set when the making has begun, and when it is over.
    """

    def __init__(self, observer: Observer) -> None:
        super().__init__(observer)
        self.begun = threading.Event()
        self._joined = False
        self._given_up = False
        self._warnings: list[str] = []

    def join(self) -> None:
        """Pass on what was to be warned of, and everything from now on."""
        self._joined = True
        for warning in self._warnings:
            super().warn(warning)

    def give_up(self) -> None:
        """Raise at the next step."""
        self._given_up = True

    def phase(self, instance: str, phase: str) -> None:
        """A step."""
        self.begun.set()
        self._check()
        if self._joined:
            super().phase(instance, phase)

    def tick(self, line: str) -> None:
        """A part of one."""
        self._check()
        if self._joined:
            super().tick(line)

    def ready(self, instance: str, seconds: float) -> None:
        """Of a later boot alone."""
        if self._joined:
            super().ready(instance, seconds)

    def failed(self, instance: str) -> None:
        """Of a later boot alone."""
        if self._joined:
            super().failed(instance)

    def warn(self, message: str) -> None:
        """Keep it for later."""
        if self._joined:
            super().warn(message)
        else:
            self._warnings.append(message)

    def _check(self) -> None:
        if self._given_up and not self._joined:
            raise GivenUp


class GivenUp(BaseException):
    """As Ctrl-C is: nobody's failure, and handled by nobody."""


def _order_monitor(instance: Instance, command: str) -> None:
    """On vz there is none; a VM there runs on, with nothing to do."""
    socket = instance.dir / "qmp.sock"
    if socket.is_socket():
        with Monitor(socket) as monitor:
            monitor.execute(command)
