"""What is written down of an instance, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pytest_lima.lima.identity import Identity

VERSION = 2

# The states of an instance, as far as its owner is concerned.
STARTING = "starting"
READY = "ready"
FAILED = "failed"
ENDING = "ending"


@dataclass(frozen=True)
class Record:
    """One instance.

    Attributes:
        name: Lima's name of it.
        home: Its LIMA_HOME.
        limactl: The limactl that made it.
        key: Hash of what it is.
        run: The run of pytest it belongs to; all workers of pytest-xdist are one run.
        owner: The process that answers for it: with pytest-xdist the controller.
        starter: Who makes it, or removes it.
        label: What the starter is called, such as ``gw0``; empty without pytest-xdist.
        state: starting, ready, failed, or ending.
        leases: The processes that use it.
        shared: Others may use it too.
        reuse: Other runs too.
        keep: It was left behind on purpose.
        failed: A test that used it failed, or its boot.
        recreated: How often its VM died and was made anew.
        idle: Seconds without a lease after which a kept one ends; None: never.
        used: When it was recorded, or last released; seconds since the epoch.
        facts: What it is, for people.
        failure: The error of its boot, field by field.
    """

    name: str
    home: str
    limactl: str
    key: str
    run: str
    owner: Identity
    starter: Identity
    label: str = ""
    state: str = STARTING
    leases: tuple[Identity, ...] = ()
    shared: bool = False
    reuse: bool = False
    keep: bool = False
    failed: bool = False
    recreated: int = 0
    idle: float | None = None
    used: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict)
    failure: Mapping[str, Any] | None = None

    @property
    def holders(self) -> tuple[Identity, ...]:
        """Leases of living processes."""
        return tuple(one for one in self.leases if one.alive())

    @property
    def claimable(self) -> bool:
        """Whether one more may join: it is ready, or somebody living is at it."""
        return self.state == READY or (self.state == STARTING and self.starter.alive())

    @property
    def made(self) -> tuple[Identity, int]:
        """What differs between two VMs that were made under one name."""
        return self.starter, self.recreated

    def is_taken_from(self, process: Identity) -> bool:
        """Whether somebody living, and not ``process``, makes, stops or removes it now."""
        working = self.state in (STARTING, ENDING)
        return working and self.starter != process and self.starter.alive()

    def leased(self, process: Identity) -> Record:
        """With a lease of ``process``, and without those of the dead."""
        others = tuple(one for one in self.holders if one != process)
        return replace(self, leases=(*others, process))

    def released(self, process: Identity) -> Record:
        """Without the lease of ``process``, and without those of the dead."""
        return replace(self, leases=tuple(one for one in self.holders if one != process))


def to_text(record: Record) -> str:
    """A record as it is stored."""
    return json.dumps({"version": VERSION, **asdict(record)})


def from_text(text: str) -> Record:
    """A stored record.

    Raises:
        ValueError: It is no record, or one of another version; says which.
    """
    try:
        data = json.loads(text)
        version = data.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("it is damaged") from None
    if version != VERSION:
        raise ValueError(f"it is of version {version!r}, this pytest-lima writes {VERSION}")
    try:
        people = {name: Identity(**data[name]) for name in ("owner", "starter")}
        leases = tuple(Identity(**lease) for lease in data["leases"])
        return _checked(Record(**{**data, **people, "leases": leases}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is damaged ({error})") from None


def _checked(record: Record) -> Record:
    """Refuse what a later comparison would choke on: the file may hold anything."""
    people = (record.owner, record.starter, *record.leases)
    texts = (record.name, record.home, record.limactl, record.key, record.run, record.state)
    plain = isinstance(record.idle, float | int | None) and isinstance(record.used, float | int)
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(isinstance(one.pid, int) for one in people)
        or not (plain and isinstance(record.facts, dict))
    ):
        raise TypeError("a value of another type")
    return record
