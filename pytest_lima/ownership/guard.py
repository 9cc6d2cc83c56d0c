"""Having a reaper: started before the first instance, and seen to be ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from pytest_lima.errors import HostError
from pytest_lima.lima import process
from pytest_lima.lima.identity import this_process
from pytest_lima.ownership.reaper import READY

_READY_TIMEOUT = 30.0


class Guard:
    """The reaper of this process, once one is needed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._companion: process.Companion | None = None
        self._pid = 0

    def call(self) -> None:
        """Start it; it gets ready while we go on."""
        if self._companion is not None and self._pid == os.getpid():
            return
        mine = this_process()
        self._pid = mine.pid
        argv = [sys.executable, "-m", "pytest_lima.ownership.reaper",
                str(mine.pid), repr(mine.started), mine.host]  # fmt: skip
        # Whatever made this package importable here does so there.
        env = {**self._environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._companion = process.Companion(argv, env=env)

    def dismiss(self) -> None:
        """Nothing of ours is left to watch over, but what was kept with an idle limit."""
        if self._companion is not None and self._pid == os.getpid():
            self._companion.release()
        self._companion = None

    def await_ready(self) -> None:
        """Return when it watches over us; from then on an instance may be made.

        Raises:
            HostError: It didn't get that far.
        """
        self.call()
        if self._companion is None or self._companion.says(READY, _READY_TIMEOUT):
            return
        companion, self._companion = self._companion, None
        companion.stop()
        raise HostError(
            "the reaper, which deletes VMs if pytest is killed, did not start",
            ran=" ".join(companion.argv[:3]),
            seen=companion.heard.decode(errors="replace") or "no answer",
            remedy="run that command and see what it says",
        )
