"""Waiting for an instance that another process starts."""

from __future__ import annotations

from pytest_lima import realtime
from pytest_lima.observer import Observer
from pytest_lima.ownership import failures
from pytest_lima.ownership.claims import Claims
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import FAILED, READY, Record

_LOOK = 0.1


def await_ready(
    record: Record, seconds: float, ledger: Ledger, claims: Claims, observer: Observer
) -> bool:
    """Wait until an instance that we have a lease of is ready.

    Returns:
        Whether it is. If not, its starter has died, and the claim has to be made again.

    Raises:
        LimaError: The starter's failure.
        ReadyTimeoutError: Its time and ours is over.
    """
    deadline = realtime.monotonic() + seconds
    told = ""
    while True:
        now = ledger.read(record.name)
        if now is not None and now.state == READY:
            return True
        if now is not None and now.state == FAILED:
            claims.drop(record.name)
            raise failures.failure_of(now)
        if now is None or not now.claimable:
            claims.drop(record.name)
            return False
        phase = ledger.phase(record.name)
        if phase != told:
            told = phase
            observer.phase(record.name, f"waiting for {failures.who(now)}: {phase}")
        if realtime.monotonic() > deadline:
            claims.drop(record.name)
            raise failures.waited_too_long(now, seconds, phase)
        # Files of another process, its phases among them: no lock would tell of all that.
        realtime.sleep(_LOOK)
