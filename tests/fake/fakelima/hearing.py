"""Children of tests that hear signals, whatever the caller of the tests ignores.

Under ``nohup``, and behind some CI runners, SIGINT and SIGHUP are ignored, and so they are by
each child, which then can't even trap them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_PROGRAM = """\
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.execvp(sys.argv[1], sys.argv[1:])
"""


def hearing(argv: Sequence[str]) -> list[str]:
    """A command line that becomes ``argv``, with the signals' defaults and under the same pid."""
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, *argv]
