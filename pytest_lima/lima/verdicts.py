"""What was seen of an accelerator, remembered in LIMA_HOME until this host is booted again.

Every worker and every run would pay for the test guest otherwise, up to its whole time limit.
A verdict is about the host's boot, the device, QEMU's executable and our test guest; where one
of them changes there is none. Two processes that begin at once may both run the test guest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lima import realtime
from pytest_lima.lima import paths, probe_guests
from pytest_lima.lima.identity import this_host

_FILE = "_accel.json"  # in LIMA_HOME, where Lima leaves alone what begins with _
_FLEETING = 600.0  # seconds
_RECIPE = 1  # raise it when QEMU gets the test guest in another way


@dataclass(frozen=True)
class Verdict:
    """What was seen.

    Attributes:
        problem: Why it doesn't work; None where it does.
    """

    problem: str | None


class Verdicts:
    """What is known of one accelerator with one QEMU."""

    def __init__(self, home: Path, hardware: str, qemu: str, path: str | None) -> None:
        """Of ``hardware``, with the ``qemu`` that is found on ``path``."""
        self._file = file_in(home)
        # A pid namespace of its own is no other host for a processor.
        self._boot = this_host().split()[0]
        guests = hashlib.sha256(probe_guests.X86_64 + probe_guests.AARCH64).hexdigest()
        about = (hardware, _identity("/dev/kvm"), _identity(shutil.which(qemu, path=path)), guests)
        self._key = hashlib.sha256(repr((_RECIPE, *about)).encode()).hexdigest()

    def read(self) -> Verdict | None:
        """What is known; None for nothing."""
        known = self._all().get(self._key)
        if not isinstance(known, dict):
            return None
        problem, seen = known.get("problem"), known.get("seen")
        if problem is not None and not known.get("lasting"):
            # The clock begins anew with each boot, as do the verdicts.
            age = realtime.monotonic() - seen if isinstance(seen, int | float) else -1.0
            if not 0 <= age < _FLEETING:
                return None
        return Verdict(None if problem is None else str(problem))

    def note(self, problem: str | None, *, lasting: bool) -> None:
        """Remember it: until the host is booted again, or what isn't ``lasting`` for a while."""
        entry = {"problem": problem, "lasting": lasting, "seen": realtime.monotonic()}
        known = {"boot": self._boot, "verdicts": {**self._all(), self._key: entry}}
        with contextlib.suppress(OSError):  # a full disk: the next process sees for itself
            paths.write_whole(self._file, json.dumps(known))

    def _all(self) -> dict[str, Any]:
        """Those of this boot of the host."""
        try:
            known = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(known, dict) or known.get("boot") != self._boot:
            return {}
        verdicts = known.get("verdicts")
        return verdicts if isinstance(verdicts, dict) else {}


def file_in(home: Path) -> Path:
    """Where they are."""
    return home / _FILE


def _identity(path: str | None) -> tuple[object, ...]:
    """What changes when the file at ``path`` is replaced, reloaded or gets other rights."""
    if path is None:
        return ()
    try:
        found = Path(path).stat()
    except OSError:
        return (path,)
    # Not the times of a device: each use changes them.
    is_device = bool(found.st_rdev)
    times = () if is_device else (found.st_size, found.st_mtime_ns)
    return (path, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_rdev, *times)
