"""``pytest-lima prune``: remove what nobody will, or everything that there is."""

from __future__ import annotations

import argparse
import json
import os
import sys

from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import Record
from pytest_lima.ownership.sweep import Sweeper


def command(args: argparse.Namespace) -> int:
    """Remove, and print what was removed; 1 where something could not be."""
    problems: list[str] = []
    ledger = Ledger()
    sweeper = Sweeper(ledger, os.environ, problems.append)
    if args.all:
        records = ledger.records()
        if records and not (args.yes or _agreed(records)):
            print("nothing was removed", file=sys.stderr)
            return 1
        removed = sweeper.named(record.name for record in records)
        failed = len(removed) < len(records)
    else:
        removed = list(sweeper.orphans())
        failed = any("could not be removed" in problem for problem in problems)
    for name in removed:
        print(json.dumps({"removed": name}) if args.json else f"removed {name}")
    if not removed and not args.json:
        print("nothing to remove")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if failed else 0


def _agreed(records: list[Record]) -> bool:
    """Ask, where somebody can answer; nobody at all means no."""
    for record in records:
        users = ", ".join(str(one.pid) for one in record.holders)
        told = f", used by process {users}" if users else ""
        print(f"{record.name}: {record.state}{told}", file=sys.stderr)
    if not sys.stdin.isatty():
        print("give --yes to remove them without a question", file=sys.stderr)
        return False
    print("Remove all of them? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
