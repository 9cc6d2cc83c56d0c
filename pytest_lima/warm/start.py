"""How an instance is started: woken up from a kept one if there is one, else cold, and kept.

Warm start is never in the way: whatever fails about it leads to a cold start with one warning,
unless it was asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_lima import realtime
from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import (
    HostError,
    InstanceDiedError,
    LimaError,
    ProvisionError,
    StartError,
)
from pytest_lima.guest.freeze import NotFrozenError
from pytest_lima.guest.identity import NotKeptError
from pytest_lima.guest.readiness import Waiting
from pytest_lima.lima import evidence
from pytest_lima.lima.host import Host
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.observer import Observer
from pytest_lima.warm import clone, fit
from pytest_lima.warm.bake import bake
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.resume import Resume
from pytest_lima.warm.store import Store

Started = tuple[Boot, Booted]
Then = Callable[[Booted], None]
Cold = Callable[[Then], Started]

_GIB = 1024**3
_MISHAPS = 2  # so many of them a start survives
# What the first has failed on may be kept anew by another run meanwhile.
_WAKE_TRIES = 2


@dataclass(frozen=True)
class Order:
    """One instance to be started.

    Attributes:
        name: Lima's name of it, recorded in the ledger.
        source: Where the template is from, for lists.
        edits: What ``limactl create`` gets besides the template.
        timeout: Seconds until it must be ready.
        mode: ``auto``, ``cold`` or ``warm``.
        budget: GiB that kept machines may take.
        cold: Creates and boots it; hands it to its argument before it is announced.
        delete: Removes all of it.
        own_keys: Whether it gets new SSH host keys when it wakes up.
    """

    host: Host
    name: str
    filled: FilledTemplate
    source: str
    edits: Sequence[str]
    timeout: float
    observer: Observer
    mode: str
    budget: float
    cold: Cold
    delete: Callable[[], None]
    own_keys: bool = False


def start(order: Order) -> Started:
    """Start it and make it ready.

    Raises:
        LimaError: Whatever kept it from being ready; the caller deletes what is left.
    """
    if order.mode == "cold":
        return order.cold(_nothing)
    store = Store(order.host.limactl.home)
    key = fit.key(order.host, order.filled)
    problem = fit.unfit_edits(order.edits) or store.refused(key)
    if problem is not None:
        if order.mode == "warm":
            raise _no_warm_start(order, problem)
        return order.cold(_nothing)
    for _ in range(_WAKE_TRIES):
        golden = store.find(key)
        if golden is None:
            with store.building(key, lambda done: _await(order, done)) as waited:
                golden, refused = store.find(key), store.refused(key)
                # Where nothing could be kept, those who waited don't wait for each other as well.
                mine = refused is None and (not waited or order.mode == "warm")
                if golden is None and mine:
                    _tell(order, problem)
                    return _cold_and_kept(order, store, key)
            if golden is None:
                _tell(order, problem)
                return order.cold(_nothing)
        try:
            return wake_up(order, golden)
        except (LimaError, OSError) as error:
            store.remove(golden)
            if golden.disk_only and isinstance(error, ProvisionError):
                store.refuse(key, f"its clone did not become ready: {_reason(error)}")
            if order.mode == "warm":
                raise
            problem = _reason(error)
        order.delete()
    _tell(order, problem)
    return order.cold(_nothing)


def wake_up(order: Order, golden: Golden) -> Started:
    """Wake it up from a kept machine, whatever the mode; there is no way back to a cold start.

    Raises:
        LimaError: It didn't wake up; the caller deletes what is left.
        OSError: The kept machine is gone, or the file system is full.
    """
    return despite_mishaps(lambda: _woken(order, golden), lambda _: order.delete())


def despite_mishaps(attempt: Callable[[], Started], clear: Callable[[StartError], None]) -> Started:
    """Start again what has failed by chance, twice at most.

    Args:
        attempt: Starts it.
        clear: Gets the failure, and removes what of it is in the way of another attempt.

    Raises:
        LimaError: What the last attempt has failed on, or one that was no mishap.
    """
    for _ in range(_MISHAPS):
        try:
            return attempt()
        except StartError as error:
            if not evidence.is_mishap(error):
                raise
            clear(error)
    return attempt()


def _woken(order: Order, golden: Golden) -> Started:
    if golden.disk_only:
        booting = clone.Clone(order.host, order.name, order.filled, order.timeout, order.observer)
        booting.lay_out(golden)
        return booting, booting.start()
    resume = Resume(order.host, order.name, order.filled, order.timeout, order.observer, golden,
                    own_keys=order.own_keys)  # fmt: skip
    try:
        resume.lay_out()
        return resume, resume.start()
    finally:
        resume.close()


def _cold_and_kept(order: Order, store: Store, key: str) -> Started:
    """The cold start that others are spared."""

    def keep(booted: Booted) -> None:
        try:
            problem = _keep(order, booted, store, key)
        except (LimaError, OSError) as error:
            if order.mode == "warm" or isinstance(error, InstanceDiedError):
                raise
            order.observer.warn(
                f"{order.name} could not be kept, so the next start is cold too: {_reason(error)}"
            )
        else:
            if problem is not None and order.mode == "warm":
                raise _no_warm_start(order, problem)

    return order.cold(keep)


def _keep(order: Order, booted: Booted, store: Store, key: str) -> str | None:
    """Keep it as it runs, with its memory if that can be; why it can't be kept at all."""
    problem = fit.unfit_machine(booted.info.dir, booted.info.config, booted.keys)
    if problem is not None:
        return problem
    order.observer.phase(order.name, "being kept for warm starts")
    by_disk = fit.unfit_memory(booted.info.config) is not None
    for keep in [clone.bake] if by_disk else [bake, clone.bake]:
        try:
            with store.half(key) as folder:
                store.publish(keep(booted, order.host.limactl.env, folder, key, order.source))
            break
        except NotKeptError:
            pass  # its memory can't be, so its disk
        except NotFrozenError as error:
            store.refuse(key, _reason(error))
            return _reason(error)
    store.shrink(int(order.budget * _GIB), keep=key)
    return None


def _no_warm_start(order: Order, problem: str) -> HostError:
    return HostError(f"{order.name} can't be kept for warm starts", seen=problem,
                     remedy="take --lima-start=auto or cold")  # fmt: skip


def _tell(order: Order, problem: str | None) -> None:
    if problem is not None:
        order.observer.warn(f"{order.name} could not wake up and starts cold: {problem}")


def _nothing(_: Booted) -> None:
    """What a cold start does with a VM that isn't kept."""


def _await(order: Order, done: Callable[[], bool]) -> None:
    """Wait for whoever starts the same machine cold."""
    order.observer.phase(order.name, "waiting for another run that starts the same VM")
    waiting = Waiting(realtime.monotonic() + order.timeout, lambda: None, lambda: None)
    waiting.until("turn to start it", lambda: done() or None)


def _reason(error: BaseException) -> str:
    if not isinstance(error, LimaError):
        return str(error)
    return "; ".join(filter(None, (error.what, error.seen, error.log and f"see {error.log}")))
