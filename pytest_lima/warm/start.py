"""How an instance is started: woken up from a kept one if there is one, else cold, and kept.

Warm start is never in the way: whatever fails about it leads to a cold start with one warning,
unless it was asked for by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import (
    AcceleratorError,
    HostError,
    InstanceDiedError,
    LimaError,
    ProvisionError,
    StartError,
)
from pytest_lima.guest.freeze import NotFrozenError
from pytest_lima.guest.identity import NotItselfError, NotKeptError
from pytest_lima.lima import evidence
from pytest_lima.lima.host import Host
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.observer import Observer
from pytest_lima.warm import clone, fit
from pytest_lima.warm import golden as records
from pytest_lima.warm.bake import bake
from pytest_lima.warm.golden import Golden, RefusedStateError
from pytest_lima.warm.resume import Resume
from pytest_lima.warm.store import Store
from pytest_lima.warm.turn import await_turn

Started = tuple[Boot, Booted]
Then = Callable[[Booted], None]
Cold = Callable[[Then], Started]

_GIB = 1024**3
# Of a guest that can't be frozen now, and may be the next time.
_PASSING = re.compile(r"resource busy|no space left|cannot allocate|temporarily", re.IGNORECASE)
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
        with ExitStack() as alone:
            try:
                golden, waited = _found(order, store, key, alone)
            except OSError as error:
                if order.mode == "warm":
                    raise
                return _cold_beside(order, error)
            if golden is None:
                _tell(order, problem)
                # Where nothing could be kept, those who waited don't wait for each other as well.
                if store.refused(key) is None and (not waited or order.mode == "warm"):
                    return _cold_and_kept(order, store, key)
        if golden is None:
            return order.cold(_nothing)
        try:
            return wake_up(order, golden)
        except AcceleratorError:
            raise  # a cold start would fail on it too, and what is kept is not at fault
        except (LimaError, OSError) as error:
            failed = error
        there, fault = store.holds(golden), _fault(golden, failed)
        if there and fault:
            with suppress(OSError):
                store.remove(golden)
        if there and order.mode == "warm":
            raise failed
        order.delete()
        problem = _reason(failed)
        if there and golden.disk_only and isinstance(failed, ProvisionError):
            return _cold_and_refused(order, store, golden, problem)
        if there and not fault:
            return _cold_beside(order, failed)
    if order.mode == "warm":
        raise failed
    _tell(order, problem)
    return order.cold(_nothing)


def _found(order: Order, store: Store, key: str, alone: ExitStack) -> tuple[Golden | None, bool]:
    """The kept machine, and whether another was waited for who could have made it.

    Without one, ``alone`` holds the right to make it.

    Raises:
        OSError: There may be one, but this process can't look now.
        ReadyTimeoutError: Another process has that right, and doesn't come to an end.
    """
    golden, waited = store.find(key), False
    if golden is None:
        waited = alone.enter_context(store.building(key, lambda done: await_turn(
            order.name, order.timeout, order.observer, lambda: store.builder(key), done,
        )))  # fmt: skip
        golden = store.find(key)
        if golden is not None:
            alone.close()
    return golden, waited


def _fault(golden: Golden, error: LimaError | OSError) -> str:
    """What is wrong with a kept machine itself that didn't wake up; empty if that isn't known.

    It is removed for no other fault: not for want of room, of memory or of files, nor because
    limactl, the network or a host that has much to do has kept it from being ready. The same
    machine may wake up the next time.
    """
    if isinstance(error, RefusedStateError | NotItselfError):
        return error.what
    return records.damage(golden)


def _cold_beside(order: Order, error: LimaError | OSError) -> Started:
    """A cold start because what is kept can't be used this time; it stays as it is."""
    hint = "what is kept stays, and `pytest-lima prune --golden` removes it if this goes on"
    _tell(order, f"{_reason(error)}; {hint}")
    return order.cold(_nothing)


def _cold_and_refused(order: Order, store: Store, golden: Golden, problem: str) -> Started:
    """A cold start after a clone in which a script failed.

    Where it goes well in the first boot of a machine, at the same time, it can't do it twice.
    """
    _tell(order, problem)
    started = order.cold(_nothing)
    with suppress(OSError):
        store.refuse(golden.key, f"its clone did not become ready: {problem}")
        store.remove(golden)
    return started


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
            if _PASSING.search(_reason(error)):
                raise
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


def _reason(error: BaseException) -> str:
    if not isinstance(error, LimaError):
        return str(error)
    return "; ".join(filter(None, (error.what, error.seen, error.log and f"see {error.log}")))
