"""Which process made an object: a forked child has a copy of each, and owns nothing behind it.

Of what its parent had, a child has no threads, locks that nobody may ever release, and the same
sockets. So it makes anew what it needs, and lets go of the rest without a word to the other end.
"""

from __future__ import annotations

import os
import weakref
from functools import cache
from typing import Protocol

from pytest_lima import realfiles


class Origin:
    """The process in which this was made."""

    def __init__(self) -> None:
        self._pid = realfiles.pid()

    @property
    def is_here(self) -> bool:
        """Whether it is this one, and not a parent that has forked."""
        return self._pid == realfiles.pid()

    def __str__(self) -> str:
        return f"process {self._pid}"


class Inherited(Protocol):
    """What can't be left as it is in a forked child."""

    def let_go(self) -> None:
        """In the child, before anything else runs in it: leave to the parent what is its own."""


_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()


def let_go_in_children(one: Inherited) -> None:
    """Have ``one.let_go()`` called in each child that is forked from now on."""
    _register()
    _inherited.add(one)


@cache
def _register() -> None:
    # For os.fork and os.forkpty, and so for multiprocessing, pty, and subprocess's preexec_fn.
    os.register_at_fork(after_in_child=_let_go_of_all)


def _let_go_of_all() -> None:
    for one in list(_inherited):
        one.let_go()
