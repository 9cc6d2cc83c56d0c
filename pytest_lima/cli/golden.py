"""``pytest-lima bake``, and the VMs kept for warm starts in ``list`` and ``prune --golden``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace

from pytest_lima.lima import paths
from pytest_lima.observer import Observer
from pytest_lima.ownership.library import lima_instance
from pytest_lima.settings import resolve
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.store import Store


class _Told(Observer):
    """Prints phases as lines on standard error; standard output has the result alone."""

    def phase(self, instance: str, phase: str) -> None:
        _tell(f"{instance}: {phase}")

    def warn(self, message: str) -> None:
        _tell(f"warning: {message}")


def bake(args: argparse.Namespace) -> int:
    """Have a VM of a template kept, so that the first run that wants one starts warm."""
    settings = replace(resolve({}, os.environ, {}), start="warm")
    spec = {"template": args.template} if args.template else {}
    with lima_instance(engine=args.engine, settings=settings, observer=_Told(), **spec) as vm:
        seconds = vm.boot_seconds
    print(f"{args.template or settings.templates[0]} is kept; this VM was ready "
          f"after {seconds:.1f} s")  # fmt: skip
    return 0


def show(*, as_json: bool) -> None:
    """Print what is kept, if anything is."""
    for golden in _store().all():
        if (row := _row(golden)) is None:
            continue
        told = (f"golden {row['key']}  {row['mib']} MiB  "
                f"{'in use' if row['in_use'] else 'not in use'}  {row['template']}")  # fmt: skip
        print(json.dumps(row) if as_json else told)


def prune(args: argparse.Namespace) -> int:
    """Remove all of it; a running VM holds its disk by a link of its own."""
    store = _store()
    store.forgive()
    found = store.all()
    for golden in found:
        row = _row(golden)
        store.remove(golden)
        if row is None:
            continue
        told = f"removed golden {row['key']}, {row['mib']} MiB, {row['template']}"
        print(json.dumps({"removed_golden": row["key"]}) if args.json else told)
    if not found and not args.json:
        print("nothing is kept for warm starts")
    return 0


def _store() -> Store:
    return Store(paths.lima_home(resolve({}, os.environ, {}).home))


def _row(golden: Golden) -> dict[str, object] | None:
    """What is to be said of one; None where a run has removed it since it was found."""
    try:
        return {
            "golden": str(golden.folder), "key": golden.key[:12], "template": golden.template,
            "mib": golden.size // 1024**2, "in_use": golden.in_use, "used": golden.used,
        }  # fmt: skip
    except FileNotFoundError:
        return None


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
