"""What a child begins with where this process isn't as processes mostly are.

A child inherits which signals are ignored and which are blocked: under ``nohup``, behind a CI
runner that ignores SIGINT, in a thread that blocks some. limactl and ssh would never hear them,
nor would what these start. And where this process doesn't leave SIGCHLD alone, the exit status of
a child is lost, or somebody else takes it.

Setting a signal's default here for a moment would be seen by all threads, and code between fork
and exec may hang where there are threads. So a small Python goes first, only where it is needed,
and becomes the child, or waits for it and reports how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SILENT = -1
# Python ignores these itself, and Popen has a child begin with their defaults.
_RESTORED = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}
# Python itself may set LC_CTYPE, for a C locale.
_PROGRAM = """\
import os, signal, sys
for number in signal.valid_signals():
    try:
        signal.signal(number, signal.SIG_DFL)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_SETMASK, ())
report, failed, has_locale, *argv = sys.argv[1:]
report, failed = int(report), int(failed)
os.set_inheritable(failed, False)
if has_locale != "True":
    os.environ.pop("LC_CTYPE", None)
child = 0
if report >= 0:
    os.set_inheritable(report, False)
    child = os.fork()
if child == 0:
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(failed, b"%d" % error.errno)
    os._exit(127)
os.close(failed)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
_, status = os.waitpid(child, 0)
try:
    os.write(report, b"%d" % os.waitstatus_to_exitcode(status))
except OSError:
    pass
os._exit(0)
"""


@dataclass(frozen=True)
class Launch:
    """How to start one child.

    Attributes:
        argv: What to run in place of its own command line.
        passed: Descriptors that it gets, for us to close once it runs.
        failure: Where it says, until it runs, why it can't; None: as ever.
        status: Where its exit status can be read when it has ended; None: it is its own.
    """

    argv: tuple[str, ...]
    passed: tuple[int, ...] = ()
    failure: int | None = None
    status: int | None = None


def launch(argv: Sequence[str], env: Mapping[str, str]) -> Launch:
    """How to have a child begin with every signal's default and none blocked."""
    lost = signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL
    if not (lost or _has_silent_signals()) or not sys.executable or hasattr(sys, "frozen"):
        return Launch(tuple(argv))
    failure, fails = os.pipe()
    hears, says = os.pipe() if lost else (None, _SILENT)
    if hears is not None:
        os.set_blocking(hears, False)  # it is read when the child has ended: all is in it
    first = (sys.executable, "-I", "-S", "-c", _PROGRAM)
    passed = (says, fails) if lost else (fails,)
    told = (str(says), str(fails), str("LC_CTYPE" in env))
    return Launch((*first, *told, *argv), passed, failure, hears)


def raise_failure(descriptor: int, program: str) -> None:
    """Wait until a child runs what it was launched for; ``passed`` is closed here by then.

    Raises:
        OSError: It can't.
    """
    number = os.read(descriptor, 16)
    if number:
        raise OSError(int(number), os.strerror(int(number)), program)


def read_status(descriptor: int) -> int:
    """The exit status that a child's launcher has reported; it was killed if it has not."""
    try:
        said = os.read(descriptor, 16)
    except BlockingIOError:
        said = b""
    finally:
        os.close(descriptor)
    return int(said) if said else -signal.SIGKILL


def _has_silent_signals() -> bool:
    """Whether a child of this thread would inherit a signal that it doesn't hear."""
    if signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return True
    others = signal.valid_signals() - _RESTORED
    return any(signal.getsignal(number) is signal.SIG_IGN for number in others)
