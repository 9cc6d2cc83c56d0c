"""The states of one instance that are kept under names, for itself alone.

In ``$LIMA_HOME/_snapshots/<instance>``, where no other instance looks, no budget counts, and
``ownership/removal.py`` removes them with their instance. Kept and laid out as golden machines.
"""

from __future__ import annotations

import errno
import re

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import HostError, LimaError, StartError, TemplateError
from pytest_lima.lima import paths
from pytest_lima.lima.host import Host
from pytest_lima.warm import fit, start
from pytest_lima.warm.bake import bake
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.store import Store

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
# What a clone begins with and is reset to; no name is like it.
_FIRST = "+first"


class Snapshots:
    """Takes and finds them."""

    def __init__(self, host: Host, instance: str) -> None:
        """Those of ``instance``; it needn't be there yet, but its record has to be."""
        self._host = host
        self._instance = instance
        self._store = Store(host.limactl.home, f"{paths.SNAPSHOTS}/{instance}")

    def take(self, booted: Booted, name: str) -> Golden:
        """Keep the state of a running VM under a name; whole, or the old one of it stays.

        Raises:
            TemplateError: The name isn't usable.
            HostError: A VM of its kind can't be kept.
            LimaError: It could not be kept; the VM runs on.
            InstanceDiedError: It doesn't.
        """
        return self._take(booted, _key(name))

    def take_first(self, booted: Booted) -> Golden:
        """Keep the state of another instance as the first of this one; raises as ``take``."""
        return self._take(booted, _FIRST)

    def find(self, name: str) -> Golden:
        """The state of a name.

        Raises:
            LimaError: There is none; says which there are.
        """
        key = _key(name)
        try:
            golden = self._store.find(key)
        except OSError as error:
            raise LimaError(
                f"the snapshot {name!r} of {self._instance} can't be read; it stays",
                seen=str(error),
                remedy=_remedy(error, self._host),
            ) from error
        if golden is None:
            raise LimaError(
                f"{self._instance} has no snapshot {name!r}",
                seen="it has " + (", ".join(self.names()) or "none"),
                remedy=f"take it before, with snapshot({name!r})",
            )
        return golden

    def names(self) -> list[str]:
        """Of all that were taken."""
        keys = (golden.key for golden in self._store.all())
        return sorted(key.replace("+", ".") for key in keys if key != _FIRST)

    def _take(self, booted: Booted, key: str) -> Golden:
        info = booted.info
        problem = fit.unfit_memory(info.config) or fit.unfit_machine(
            info.dir, info.config, booted.keys
        )
        if problem is not None:
            raise HostError(
                f"the state of {info.name} can't be kept",
                seen=problem,
                remedy="take a VM of another kind for this; reset() works with any",
            )
        try:
            with self._store.half(key) as folder:
                return self._store.publish(
                    bake(booted, self._host.limactl.env, folder, key, info.name)
                )
        except OSError as error:
            raise LimaError(
                f"the state of {info.name} could not be kept; the VM runs on", seen=str(error),
                remedy=_remedy(error, self._host),
            ) from error  # fmt: skip


def wake_up(order: start.Order, golden: Golden) -> tuple[Boot, Booted]:
    """Begin in a state that was kept, as only that will do.

    Raises:
        LimaError: It didn't wake up; the caller deletes what is left.
    """
    try:
        return start.wake_up(order, golden)
    except OSError as error:
        raise StartError(
            f"{order.name} could not wake up from a state that was kept",
            seen=str(error),
            remedy=_remedy(error, order.host),
        ) from error


def _remedy(error: OSError, host: Host) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"make room on the file system of {host.limactl.home}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "close open files, or allow for more: see `ulimit -n`"
    return "mend what that names"


def _key(name: str) -> str:
    """The store's key of a name; a dot has a meaning in those."""
    if not _NAME.fullmatch(name):
        raise TemplateError(
            f"the name {name!r} can't be used for a snapshot",
            remedy="give 1 to 40 of a-z, 0-9, -, _ and ., the first a letter or a digit",
        )
    return name.replace(".", "+")
