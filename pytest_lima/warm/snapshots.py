"""The states of one instance that are kept under names, for itself alone.

In ``$LIMA_HOME/_snapshots/<instance>``, where no other instance looks, no budget counts, and
``ownership/removal.py`` removes them with their instance. Kept and laid out as golden machines.
"""

from __future__ import annotations

import errno
import os
import re

from pytest_lima.errors import HostError, LimaError, TemplateError
from pytest_lima.lima import paths
from pytest_lima.lima.host import Host
from pytest_lima.ready import ReadyVM
from pytest_lima.warm import fit
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

    def take(self, vm: ReadyVM, name: str) -> Golden:
        """Keep the state of a running VM under a name; whole, or the old one of it stays.

        Raises:
            TemplateError: The name isn't usable.
            HostError: A VM of its kind can't be kept.
            LimaError: It could not be kept; the VM runs on.
            InstanceDiedError: It doesn't.
        """
        return self._take(vm, _key(name))

    def take_first(self, vm: ReadyVM) -> Golden:
        """Keep the state of another instance as the first of this one; raises as ``take``."""
        return self._take(vm, _FIRST)

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
                f"the snapshot {name!r} of {self._instance} can't be read; it is not removed",
                seen=str(error),
                remedy=remedy(error, self._host),
            ) from error
        if golden is None:
            raise LimaError(
                f"{self._instance} has no snapshot {name!r}",
                seen="it has " + (", ".join(self.names()) or "none"),
                remedy=f"take it first, with snapshot({name!r})",
            )
        return golden

    def read(self, key: str) -> Golden:
        """The state of a key, which one that was taken or found has.

        Raises:
            OSError: It can't be read, or is gone.
        """
        golden = self._store.find(key)
        if golden is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)
        return golden

    def names(self) -> list[str]:
        """Of all that were taken."""
        keys = (golden.key for golden in self._store.all())
        return sorted(key.replace("+", ".") for key in keys if key != _FIRST)

    def _take(self, vm: ReadyVM, key: str) -> Golden:
        info = vm.info
        problem = fit.unfit_memory(info.config) or fit.unfit_machine(info.dir, info.config, vm.keys)
        if problem is not None:
            raise HostError(
                f"the state of {info.name} can't be saved",
                seen=problem,
                remedy="use another kind of VM for this; reset() works with any",
            )
        try:
            with self._store.half(key) as folder:
                return self._store.publish(bake(vm, self._host.limactl.env, folder, key, info.name))
        except OSError as error:
            raise LimaError(
                f"the state of {info.name} could not be saved; the VM runs on", seen=str(error),
                remedy=remedy(error, self._host),
            ) from error  # fmt: skip


def remedy(error: OSError, host: Host) -> str:
    """What helps against what keeps a state from being saved, read or resumed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free disk space on the file system of {host.limactl.home}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "close open files, or allow more with `ulimit -n`"
    return "fix what that names"


def _key(name: str) -> str:
    """The store's key of a name; a dot has a meaning in those."""
    if not _NAME.fullmatch(name):
        raise TemplateError(
            f"the name {name!r} can't be used for a snapshot",
            remedy="use 1 to 40 of a-z, 0-9, -, _ and ., the first a letter or a digit",
        )
    return name.replace(".", "+")
