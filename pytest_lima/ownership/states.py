"""The states of an instance: begun anew, kept under names, doubled. For who has it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.instance import Instance
from pytest_lima.ownership.starting import Order
from pytest_lima.warm.snapshots import Snapshots

if TYPE_CHECKING:
    from pytest_lima.ownership.making import Maker


class States:
    """Of an instance that this process holds, whoever has started it."""

    def __init__(self, order: Order, maker: Maker) -> None:
        """``order`` says in which state it first was."""
        self._order = order
        self._maker = maker
        self._snapshots = Snapshots(order.host, order.name)

    def reset(self, let_go: Callable[[], None]) -> tuple[Boot, Booted]:
        """Begin anew in the first state.

        Raises:
            LimaError: Others use it, or it could not be started again.
        """
        return self._maker.anew(self._order, "reset", let_go)

    def snapshot(self, name: str, booted: Booted) -> None:
        """Keep its state under a name.

        Raises:
            LimaError: Others use it, or it could not be kept.
        """
        with self._maker.standing_still(self._order.name, "kept"):
            self._snapshots.take(booted, name)

    def restore(self, name: str, let_go: Callable[[], None]) -> tuple[Boot, Booted]:
        """Begin anew in a state that was kept.

        Raises:
            LimaError: Others use it, there is no such state, or it didn't wake up.
        """
        kept = self._snapshots.find(name)
        return self._maker.anew(replace(self._order, kept=kept), "restored", let_go)

    def clone(self, booted: Booted) -> Instance:
        """Make another that begins in its state.

        Raises:
            LimaError: Others use it, it could not be kept, or the other didn't wake up.
        """
        return self._maker.double(self._order, booted)
