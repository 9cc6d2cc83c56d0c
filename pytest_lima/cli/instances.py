"""``pytest-lima list``: a table of the recorded instances, or JSON lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_lima.cli import golden
from pytest_lima.lima.vitals import Vitals
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import READY, Record

_COLUMNS = ("NAME", "STATE", "VM", "OWNER", "USERS", "WHAT")


@dataclass(frozen=True)
class Row:
    """One instance, for people and for programs.

    Attributes:
        state: starting, ready, failed, ending or kept.
        vm: running, stopped or gone.
        owner: The process that answers for it.
        owner_alive: Whether that process still runs.
        users: The living processes that use it.
        orphan: Nobody is going to use or remove it: ``prune`` will.
    """

    name: str
    state: str
    vm: str
    home: str
    key: str
    run: str
    owner: int
    owner_alive: bool
    users: tuple[int, ...]
    kept: bool
    orphan: bool
    what: dict[str, str]


def command(args: argparse.Namespace) -> int:
    """Print them; files that aren't records are named too."""
    ledger = Ledger()
    rows = [row_of(record) for record in ledger.records()]
    if args.json:
        for row in rows:
            _say(json.dumps(row.__dict__))
    elif rows:
        _say(table([_cells(row) for row in rows]))
    else:
        _say("no instances of pytest-lima")
    golden.show(as_json=args.json)
    for path, problem in ledger.unreadable().items():
        entry = {"unreadable": str(path), "problem": problem}
        _say(json.dumps(entry) if args.json else f"{path} can't be read: {problem}")
    return 0


def row_of(record: Record) -> Row:
    """What is to be said of an instance."""
    folder = Path(record.home) / record.name
    alive = record.owner.alive()
    return Row(
        name=record.name,
        state="kept" if record.keep and record.state == READY else record.state,
        vm=_vm(folder),
        home=record.home,
        key=record.key,
        run=record.run,
        owner=record.owner.pid,
        owner_alive=alive,
        users=tuple(one.pid for one in record.holders),
        kept=record.keep,
        orphan=not (alive or record.keep or record.holders),
        what={name: text for name, text in record.facts.items() if text and text != "{}"},
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the last one as it is."""
    lines = [_COLUMNS, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(_COLUMNS) - 1)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Iterable[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    return "  ".join([*padded, cells[-1]])


def _cells(row: Row) -> tuple[str, ...]:
    owner = f"{row.owner}" if row.owner_alive else f"{row.owner} (dead)"
    users = ", ".join(map(str, row.users)) or "nobody"
    known = ("template", "vmtype", "cpus", "memory", "engines")
    what = ", ".join(f"{name} {row.what[name]}" for name in known if name in row.what)
    return (row.name, row.state, row.vm, owner, users, what)


def _vm(folder: Path) -> str:
    if not folder.is_dir():
        return "gone"
    return "stopped" if Vitals(folder).cause_of_death() else "running"


def _say(text: str) -> None:
    print(text)
