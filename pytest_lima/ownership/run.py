"""A run of pytest: one process, or all workers of pytest-xdist with their controller."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from pytest_lima.lima.identity import Identity, this_process


@dataclass(frozen=True)
class Run:
    """A run of pytest.

    Attributes:
        id: Of the run; all workers of pytest-xdist have the same.
        owner: Who answers for its VMs; with pytest-xdist the controller.
        label: What this process of it is called: the worker's id.
        many: There are several workers.
        final: This process is the one that ends last: the controller.
        free_memory: MiB, before any of its VMs ran.
    """

    id: str
    owner: Identity
    label: str = ""
    many: bool = False
    final: bool = False
    free_memory: int = 0

    @classmethod
    def alone(cls) -> Run:
        """This process is all of it."""
        return cls(secrets.token_hex(8), this_process())
