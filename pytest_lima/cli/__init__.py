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
        prog="pytest-lima", description="The VMs of pytest-lima on this host."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("list", help="show who owns and who uses which VM")
    one.add_argument("--json", action="store_true", help="one JSON object a line")
    one.set_defaults(command=instances.command)
    one = commands.add_parser("prune", help="remove the VMs whose owners are dead")
    one.add_argument("--all", action="store_true", help="every VM, after a question")
    one.add_argument("--yes", action="store_true", help="don't ask")
    one.add_argument("--golden", action="store_true", help="what is kept for warm starts instead")
    one.add_argument("--json", action="store_true", help="one JSON object a line")
    one.set_defaults(command=lambda args: (golden.prune if args.golden else prune.command)(args))
    one = commands.add_parser("bake", help="keep a VM of a template for warm starts")
    one.add_argument("template", nargs="?", metavar="TEMPLATE", help="as for --lima-template")
    one.add_argument("--engine", choices=ENGINES, default="none", help="to be ready in it")
    one.set_defaults(command=golden.bake)
    return parser
