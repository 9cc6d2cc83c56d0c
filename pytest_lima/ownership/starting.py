"""How a machine is started: the seam between who owns it and how it comes to be ready."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_lima.boot import Boot
from pytest_lima.booted import Booted
from pytest_lima.errors import StartError
from pytest_lima.lima import hostports, logs, paths
from pytest_lima.lima.host import Host
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.observer import Observer, Relay
from pytest_lima.ownership import removal
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.settings import DEFAULT_TEMPLATE
from pytest_lima.spec import MachineSpec
from pytest_lima.warm import snapshots
from pytest_lima.warm import start as warm
from pytest_lima.warm.golden import Golden


@dataclass(frozen=True)
class Order:
    """One machine to be started.

    Attributes:
        host: Where.
        name: As what; it is in the ledger already.
        spec: What was asked for.
        filled: What limactl gets.
        timeout: Seconds until it must be ready.
        mode: ``auto``, ``cold`` or ``warm``.
        warm_budget: GiB that kept machines may take.
        kept: The state that it begins in, whatever the mode; None: that of its template.
        own_keys: Whether it gets new SSH host keys when it wakes up.
    """

    host: Host
    name: str
    spec: MachineSpec
    filled: FilledTemplate
    timeout: float
    mode: str = "cold"
    warm_budget: float = 0.0
    kept: Golden | None = None
    own_keys: bool = False


def boot_of(order: Order, observer: Observer) -> Boot:
    """What boots, and reboots, this machine."""
    return Boot(order.host, order.name, order.filled, order.timeout, observer)


def start(order: Order, observer: Observer, ledger: Ledger) -> tuple[Boot, Booted]:
    """Make the instance and start it until it is ready, warm or cold.

    Raises:
        LimaError: Whatever kept it from being ready; the caller removes what is left of it.
    """
    noted = Noted(observer, ledger)
    _require_ports(order, observer)
    wanted = warm.Order(
        order.host, order.name, order.filled, order.spec.template or DEFAULT_TEMPLATE,
        order.filled.edits, order.timeout, noted, order.mode, order.warm_budget,
        lambda then: _cold(order, noted, ledger, then),
        lambda: removal.remove(order.host.limactl, order.name, observer.warn), order.own_keys,
    )  # fmt: skip
    return warm.start(wanted) if order.kept is None else snapshots.wake_up(wanted, order.kept)


def _require_ports(order: Order, observer: Observer) -> None:
    """Before anything is made: ports of this host that are its alone."""
    hostports.require_free(order.name, order.filled.ssh_port)
    for port, problem in hostports.taken(order.filled.ports).items():
        observer.warn(f"port {port} of this host can't be forwarded to {order.name}: {problem}")


def _cold(order: Order, observer: Observer, ledger: Ledger, then: warm.Then) -> tuple[Boot, Booted]:
    boot = boot_of(order, observer)
    home = order.host.limactl.home
    yaml = paths.template_file(home, order.name)
    yaml.write_text(order.filled.text)
    with ledger.first_create(home):
        boot.create(yaml, order.filled.edits)
    yaml.unlink()

    def clear(error: StartError) -> None:
        nonlocal boot
        observer.warn(f"{order.name} is started once more: {error.what}: {error.seen}")
        removal.halt(home / order.name, observer.warn)
        logs.clear(home / order.name)
        boot = boot_of(order, observer)

    return warm.despite_mishaps(lambda: (boot, boot.start(then)), clear)


def start_anew(order: Order, observer: Observer, ledger: Ledger) -> tuple[Boot, Booted]:
    """Remove what there is of an instance, and start it from nothing under its name.

    Raises:
        LimaError: Whatever kept it from being ready; the caller removes what is left of it.
    """
    removal.remove(order.host.limactl, order.name, observer.warn)
    return start(order, observer, ledger)


def restart(order: Order, observer: Observer, ledger: Ledger) -> tuple[Boot, Booted]:
    """Start an instance that is there and stopped, or dead.

    Raises:
        LimaError: Whatever kept it from being ready.
    """
    removal.halt(order.host.limactl.home / order.name, observer.warn)
    boot = boot_of(order, Noted(observer, ledger))
    logs.clear(order.host.limactl.home / order.name)
    return boot, boot.start()


class Noted(Relay):
    """Passes everything on, and lets waiting processes read the phase in the ledger."""

    def __init__(self, observer: Observer, ledger: Ledger) -> None:
        super().__init__(observer)
        self._ledger = ledger

    def phase(self, instance: str, phase: str) -> None:
        """Pass it on and write it down."""
        self._ledger.note_phase(instance, phase)
        super().phase(instance, phase)
