"""A real, disposable Linux VM for your tests, through Lima.

The engine is usable without pytest::

    from pytest_lima import lima_instance

    with lima_instance(template="template:ubuntu-lts") as vm:
        print(vm.run("uname -a").stdout)

Names are loaded on first use: pytest imports this package at every start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_lima.errors import (
        AcceleratorError,
        CleanupError,
        CommandError,
        CommandTimeoutError,
        ConnectionLostError,
        HostError,
        HostKeyError,
        InstanceDiedError,
        LimactlMissingError,
        LimactlVersionError,
        LimaError,
        ProvisionError,
        ReadyTimeoutError,
        StartError,
        TemplateError,
        WaitTimeoutError,
    )
    from pytest_lima.guest.commands import CommandResult
    from pytest_lima.instance import Instance
    from pytest_lima.ownership.library import lima_instance
    from pytest_lima.ownership.pool import LimaFactory
    from pytest_lima.settings import Settings

__version__ = "0.1.0"

_HOMES = {
    "CommandResult": "pytest_lima.guest.commands",
    "Instance": "pytest_lima.instance",
    "LimaFactory": "pytest_lima.ownership.pool",
    "lima_instance": "pytest_lima.ownership.library",
    "Settings": "pytest_lima.settings",
}

__all__ = [
    "AcceleratorError",
    "CleanupError",
    "CommandError",
    "CommandResult",
    "CommandTimeoutError",
    "ConnectionLostError",
    "HostError",
    "HostKeyError",
    "Instance",
    "InstanceDiedError",
    "LimaError",
    "LimaFactory",
    "LimactlMissingError",
    "LimactlVersionError",
    "ProvisionError",
    "ReadyTimeoutError",
    "Settings",
    "StartError",
    "TemplateError",
    "WaitTimeoutError",
    "lima_instance",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "pytest_lima.errors")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
