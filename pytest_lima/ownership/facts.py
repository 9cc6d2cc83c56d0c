"""What a machine is, for people; and how many of its kind this host can carry."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import fields

from pytest_lima.ownership.starting import Order
from pytest_lima.values import gib

_TEXT = "the template's text"
# Lima's own default, for templates that leave it open (pkg/limayaml/defaults.go).
_DEFAULT_GIB = 4.0


def describe(order: Order) -> dict[str, str]:
    """Everything that decides what a machine is, by name."""
    facts = {field.name: _shown(getattr(order.spec, field.name)) for field in fields(order.spec)}
    return {
        **facts,
        "vmtype": order.host.vmtype,
        "arch": order.host.arch,
        _TEXT: hashlib.sha256(order.filled.text.encode()).hexdigest()[:12],
    }


def differences(asked: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What keeps a machine that is there from being the one that is asked for."""
    found = [
        f"{name} is {there.get(name) or 'not set'}, asked for is {asked.get(name) or 'not set'}"
        for name in asked
        if asked.get(name) != there.get(name)
    ]
    # It follows from the others, and says something only when it is alone.
    told = [text for text in found if not text.startswith(_TEXT)]
    return told or found


def most_vms(configured: int | None, order: Order, free_mib: int) -> int:
    """How many such VMs a run may have at once: as configured, else by memory and cores."""
    if configured is not None:
        return configured
    return max(1, min(int(free_mib / 1024 / _gib_of(order)), os.cpu_count() or 1))


def fits_beside(configured: int | None, order: Order, running: int, free_mib: int) -> bool:
    """Whether one more, which has nothing to do, may be beside those that run: by memory alone."""
    return running < configured if configured is not None else free_mib / 1024 >= _gib_of(order)


def _gib_of(order: Order) -> float:
    match = re.search(r"^memory: *['\"]?([\w.]+)", order.filled.text, re.MULTILINE)
    try:
        return gib(match[1]) if match else _DEFAULT_GIB
    except ValueError:
        return _DEFAULT_GIB


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, tuple):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)
