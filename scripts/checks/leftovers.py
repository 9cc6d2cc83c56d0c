"""Fail if the tests left an instance, a process of one, or a record in the ledger."""

import os
import sys

import psutil

from pytest_lima.lima import paths
from pytest_lima.ownership.ledger import Ledger


def main() -> int:
    home = paths.lima_home(os.environ.get("PYTEST_LIMA_HOME"))
    found = [f"instance {path.parent}" for path in home.glob("*/lima.yaml")]
    found += [f"record of {record.name}" for record in Ledger().records()]
    for process in psutil.process_iter(["cmdline", "username"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(home) in line and process.pid != os.getpid():
            found.append(f"process {process.pid}: {line[:200]}")
    for thing in found:
        print("left behind:", thing, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
