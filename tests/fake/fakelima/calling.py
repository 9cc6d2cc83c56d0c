"""What all commands of the fake limactl share: flags, names, the log, the hanging."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fakelima import common
from fakelima.common import refuse

_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_UNIX_PATH_MAX = 108 if sys.platform == "linux" else 104


def hang(where: str, config: dict[str, Any] | None = None) -> None:
    """Never return, if that is the scenario's wish for this command."""
    scenario = common.scenario(config)
    if scenario["hang"] == where:
        if scenario["stubborn"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)


def say(level: str, msg: str) -> None:
    print(common.log_line(level, msg), file=sys.stderr, flush=True)


def fatal(msg: str) -> NoReturn:
    say("fatal", msg)
    raise SystemExit(1)


def flags_of(args: Sequence[str], *known: str) -> tuple[dict[str, list[str]], list[str]]:
    """``--flag=value`` by flag, and the arguments that are none."""
    flags: dict[str, list[str]] = {}
    rest = []
    for arg in args:
        if not arg.startswith("-") or arg == "-":
            rest.append(arg)
            continue
        flag, equals, value = arg.partition("=")
        if flag not in known:
            refuse(f"the flag {flag}")
        flags.setdefault(flag, []).append(value if equals else "true")
    return flags, rest


def one(rest: Sequence[str], what: str = "instance") -> str:
    if len(rest) != 1:
        refuse(f"needs one {what}")
    return rest[0]


def folder_of(name: str) -> Path:
    if not _NAME.fullmatch(name) or len(name) > 76:
        refuse(f"{name!r} is no name for an instance")
    folder = Path(os.environ["LIMA_HOME"]) / name
    if len(str(folder / "ssh.sock.1234567890123456")) >= _UNIX_PATH_MAX:
        refuse(f"the path {folder} is too long")
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "fake.json").read_text())
    return config
