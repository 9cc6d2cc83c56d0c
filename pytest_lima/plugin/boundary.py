"""Where whatever goes wrong in a hook of ours is told, and doesn't end the run.

pytest ends a run, with INTERNALERROR and the tests that are left not run, when a hook raises. Ours
run while the test's patches are on: it may have replaced ``open``, methods of ``Path``, ``socket``
or ``json``, and what comes of that can be any exception. So this is the one place of the plugin
that catches all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def told(tell: Callable[[str], object], what: str) -> Iterator[None]:
    """Go on after anything that goes wrong inside, and say so in one line.

    Ctrl-C, ``pytest.exit`` and a time-out of the test's go through.

    Args:
        tell: Gets the line.
        what: Its beginning: what there won't be for that.
    """
    try:
        yield
    except pytest.exit.Exception:
        raise
    except Exception as error:
        tell(f"{what}: {reason(error)}")


def reason(error: Exception) -> str:
    """What an exception says, as a part of one line."""
    try:
        said = " ".join(str(error).split())
    except Exception:
        said = "it can't say what"  # its text is made by what the test has replaced, for one
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
