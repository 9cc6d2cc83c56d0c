"""Having a reaper: started before the first instance, and seen to be ready."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pytest_lima import realfiles
from pytest_lima.errors import HostError
from pytest_lima.lima import process, python
from pytest_lima.lima.identity import this_process
from pytest_lima.ownership.reaper import MODULE, NEEDS, READY

_READY_TIMEOUT = 30.0


class Guard:
    """The reaper of this process, once one is needed; for as many threads as like."""

    def __init__(self, environ: Mapping[str, str], ledger: Path | None = None) -> None:
        """Have it watch over the instances in the folder ``ledger``, by default the user's."""
        self._environ = environ
        self._ledger = ledger
        self._lock = threading.Lock()  # held for a look and a start, never until it is ready
        self._companion: process.Companion | None = None
        self._pid = 0
        self._starts = 0

    def call(self) -> process.Companion:
        """Start it; it gets ready while we go on."""
        with self._lock:
            if self._companion is None or self._pid != realfiles.pid():
                self._pid = realfiles.pid()
                self._companion = self._start()
            return self._companion

    def dismiss(self) -> None:
        """Nothing of ours is left to watch over, but what was kept with an idle limit.

        Where a thread is still starting something, the reaper stays until this process ends.
        """
        with self._lock:
            if self._starts:
                return
            companion, self._companion = self._companion, None
        if companion is not None and self._pid == realfiles.pid():
            companion.release()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While an instance is made; see ``await_ready``."""
        with self._lock:
            self._starts += 1
        try:
            self.await_ready()
            yield
        finally:
            with self._lock:
                self._starts -= 1

    def await_ready(self) -> None:
        """Return when it watches over us; from then on an instance may be made.

        Raises:
            HostError: It didn't get that far; the next one who asks has another started.
        """
        companion = self.call()
        if companion.says(READY, _READY_TIMEOUT):
            return
        with self._lock:
            if self._companion is companion:
                self._companion = None
        companion.stop()
        raise HostError(
            "the reaper, which deletes VMs if pytest is killed, did not start",
            ran=f"{shlex.join(companion.argv[:3])} -c … {MODULE}",
            seen=companion.heard.decode(errors="replace") or "no answer",
            remedy=f"fix what it says; it takes this Python alone, with {', '.join(NEEDS)}",
        )

    def _start(self) -> process.Companion:
        mine = this_process()
        args = [str(mine.pid), repr(mine.started), mine.host]
        if self._ledger is not None:
            args.append(str(self._ledger))
        argv = python.command(MODULE, args, NEEDS)
        return process.Companion(argv, env=python.environment(self._environ))
