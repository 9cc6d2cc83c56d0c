"""The ``pytest-lima`` command: what instances there are, and removing them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_lima.errors import LimaError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except LimaError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from pytest_lima.cli import instances, prune

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
    one.add_argument("--json", action="store_true", help="one JSON object a line")
    one.set_defaults(command=prune.command)
    return parser
