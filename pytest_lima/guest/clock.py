"""The guest's clock, within a second of the host's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import LimaError, ReadyTimeoutError
from pytest_lima.guest import answers
from pytest_lima.guest.answers import NotAnsweringError
from pytest_lima.guest.commands import run
from pytest_lima.guest.ssh import Connection

TOLERANCE = 1.0  # seconds
_TRIES = 3
_LOOKS = 3
_A_MOMENT = 0.01
_COMMAND_TIMEOUT = 60.0
_TIME = re.compile(r"(?m)^\d+(\.\d+)?")


def correct(connection: Connection) -> None:
    """Bring the guest's clock within a second of the host's.

    Raises:
        ReadyTimeoutError: It can't be set.
    """
    drift, _ = _drift(connection)
    doubt = 0.0
    if abs(drift) > TOLERANCE:
        # Asked again, as a connection's first command waits for its shell: on a slow machine
        # that alone is seconds, and others may use this VM's clock.
        drift, doubt = _drift(connection)
    late = 0.0  # how long sudo and a shell take to get to it, on a slow machine seconds
    for _ in range(_TRIES):
        if abs(drift) <= TOLERANCE:
            return
        now = realtime.now() + late
        # A busybox takes whole seconds only.
        line = f"date -u -s @{now:.3f} || date -u -s @{now:.0f}"
        run(connection, line, user="root", check=False)
        drift, doubt = _drift(connection)
        late -= drift
    if abs(drift) - doubt > TOLERANCE:
        raise ReadyTimeoutError(
            f"the guest's clock is {drift:+.1f} s off and can't be set",
            ran="date -u -s in the guest",
            remedy="check time services and sudo in the template",
        )


def seconds(said: str) -> float | None:
    """The time that ``date +%s.%N`` prints; None where it is none.

    A busybox without %N has whole seconds alone; half of one is their middle.
    """
    match = _TIME.search(said)
    if match is None:
        return None
    return float(match[0]) + (0.0 if match[1] else 0.5)


def is_right_by_docker(path: Path, enough: Callable[[float], bool] = lambda _: True) -> bool:
    """Whether the guest's clock was seen to be right by what its Docker says, without a command.

    Docker tells the second and no more, so a clock that is right may not be seen to be: then it
    is asked again when that tells more, or the guest has to be.

    Args:
        path: Docker's forwarded socket.
        enough: Waits for so many seconds; whether Docker needs not be asked again.
    """
    for _ in range(_LOOKS):
        before = realtime.now()
        try:
            said = answers.docker_date(path)
        except NotAnsweringError:
            return False
        after = realtime.now()
        if said is None:
            return False
        # From `before` to `after` here it was from `said` to a second later there.
        least, most = said - after, said + 1 - before
        if least >= -TOLERANCE and most <= TOLERANCE:
            return True
        if least > TOLERANCE or most < -TOLERANCE or enough(_until_next_look(before, after, most)):
            return False
    return False


def _until_next_look(before: float, after: float, most: float) -> float:
    """A guest that is ahead is seen best as a second of ours begins, one behind as it ends."""
    left = 1 - after % 1
    return left + _A_MOMENT if most > TOLERANCE else (left - 2 * (after - before)) % 1


def _drift(connection: Connection) -> tuple[float, float]:
    """Seconds the guest is ahead, and by how many that may be wrong: half the round trip."""
    before = realtime.now()
    said = run(connection, "date +%s.%N", timeout=_COMMAND_TIMEOUT).stdout
    guest = seconds(said)
    if guest is None:
        raise LimaError("the guest's time can't be read", ran="date +%s.%N", seen=said)
    after = realtime.now()
    return guest - (before + after) / 2, (after - before) / 2
