"""The ``pytest-lima`` command: what instances there are, removing and keeping them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_lima.errors import LimaError
from pytest_lima.lima.engines import ENGINES


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except LimaError as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from pytest_lima.cli import golden, instances, prune

    parser = argparse.ArgumentParser(
        prog="pytest-lima", description="Manage the VMs of pytest-lima on this host."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("list", help="list the VMs with their owners and users")
    one.add_argument("--json", action="store_true", help="print one JSON object per line")
    one.set_defaults(command=instances.command)
    one = commands.add_parser("prune", help="remove the VMs whose owners are dead")
    one.add_argument("--all", action="store_true", help="remove every VM, after asking")
    one.add_argument("--yes", action="store_true", help="don't ask")
    one.add_argument("--golden", action="store_true", help="remove the golden images instead")
    one.add_argument("--json", action="store_true", help="print one JSON object per line")
    one.set_defaults(command=lambda args: (golden.prune if args.golden else prune.command)(args))
    one = commands.add_parser("bake", help="save a golden image of a template, for warm starts")
    one.add_argument("template", nargs="?", metavar="TEMPLATE", help="see --lima-template")
    one.add_argument("--engine", choices=ENGINES, default="none", help="the container engine in it")
    one.set_defaults(command=golden.bake)
    return parser
