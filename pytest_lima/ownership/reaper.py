"""The reaper: a process beside pytest that deletes what pytest can't when it is killed.

Its arguments are ``PID STARTED HOST [LEDGER]``. Standard input is a pipe that only pytest writes
to: its end means that pytest has ended, however that came about. What is then without an owner and
without users is deleted. VMs that were kept with an idle limit are waited for and deleted as well.

Light on purpose: no pytest, no paramiko, no yaml. All that it will need is imported before it says
that it is ready: whoever runs tests may exchange the files of an environment meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.lima.identity import Identity
from pytest_lima.lima.process import GOODBYE
from pytest_lima.lima.waits import readable
from pytest_lima.ownership.ledger import Ledger, state_folder
from pytest_lima.ownership.sweep import Sweeper, seconds_until_idle

MODULE = "pytest_lima.ownership.reaper"
NEEDS = ("psutil", "filelock", "platformdirs")
READY = b"pytest-lima reaper ready\n"
_LOOK = 1.0
_IDLE_LOOK = 5.0
_TRIES = 5
_LOG_LIMIT = 1024 * 1024

_log = logging.getLogger("pytest_lima.reaper")


def main(argv: list[str]) -> None:
    """Wait for the end of the process in ``argv``, then sweep."""
    parent = Identity(int(argv[0]), float(argv[1]), argv[2])
    os.chdir("/")
    folder = Path(argv[3]) if argv[3:] else state_folder() / "instances"
    ledger = Ledger(folder)
    _open_log(folder.parent)
    _load()
    # Whoever waits for the end of our output, such as a CI runner's pipe, mustn't wait for us.
    with contextlib.suppress(BrokenPipeError):  # it may be gone already
        os.write(1, READY)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    dismissed = _await_end(parent)
    sweeper = Sweeper(ledger, os.environ, _log.warning)
    if not dismissed:
        _sweep(ledger, sweeper)
    if seconds_until_idle(ledger.records()) is not None:
        with ledger.only_watcher() as ours:
            while ours and (seconds := seconds_until_idle(ledger.records())) is not None:
                realtime.sleep(min(seconds + 0.1, _IDLE_LOOK))
                _sweep(ledger, sweeper)


def _await_end(parent: Identity) -> bool:
    """Until the pipe ends, or its other end lives on in a fork of pytest but pytest doesn't.

    Returns:
        Whether we were told to go, nothing being left to watch over.
    """
    while True:
        said = os.read(0, 4096) if readable(0, _LOOK) else None
        if said == GOODBYE:
            return True
        if said is not None:
            break
        if not parent.alive():
            return False
    deadline = realtime.monotonic() + _LOOK
    while parent.alive() and realtime.monotonic() < deadline:
        realtime.sleep(0.01)  # the pipe ends a moment before the process does
    return False


def _sweep(ledger: Ledger, sweeper: Sweeper) -> None:
    """A few tries: a worker that was killed with its controller may end a moment later."""
    for _ in range(_TRIES):
        for name, why in sweeper.orphans().items():
            _log.warning("removed %s, %s", name, why)
        if not any(not one.owner.alive() and not one.keep for one in ledger.records()):
            return
        realtime.sleep(_LOOK)


def _load() -> None:
    """Import what is imported on use elsewhere, and use what imports something itself."""
    for name in NEEDS:
        importlib.import_module(name)
    realtime.now()


def _open_log(folder: Path) -> None:
    path = folder / "reaper.log"
    too_long = path.exists() and path.stat().st_size > _LOG_LIMIT
    logging.basicConfig(
        filename=path,
        filemode="w" if too_long else "a",
        format=f"%(asctime)s {os.getpid()} %(message)s",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
