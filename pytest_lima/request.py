"""What is asked of a start: one machine, with all that decides what it will be."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_lima.lima.host import Host
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.settings import DEFAULT_TEMPLATE
from pytest_lima.spec import MachineSpec


@dataclass(frozen=True)
class StartRequest:
    """One machine to be started.

    Attributes:
        host: Where.
        name: As what; it is in the ledger before it is started.
        spec: What was asked for.
        filled: What limactl gets.
        timeout: Seconds until it must be ready.
        mode: ``auto``, ``cold`` or ``warm``.
        warm_budget: GiB that kept machines may take.
        state: The key of the state of its own that it begins in, whatever the mode; empty: that
            of its template.
        own_keys: Whether it gets new SSH host keys when it wakes up.
    """

    host: Host
    name: str
    spec: MachineSpec
    filled: FilledTemplate
    timeout: float
    mode: str = "cold"
    warm_budget: float = 0.0
    state: str = ""
    own_keys: bool = False

    @property
    def source(self) -> str:
        """Where its template is from."""
        return self.spec.template or DEFAULT_TEMPLATE
