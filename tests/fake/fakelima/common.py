"""What all parts of the fake use: the folder they share, logs, pid files, processes."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from fakelima.scenarios import DEFAULTS

# The environment variable of a template through which one instance gets its own scenario.
SCENARIO_VARIABLE = "FAKE_LIMA_SCENARIO"
# The file in an instance's folder while which its sshd lets nobody in.
LOGINS_HELD = "logins-held"


def world() -> Path:
    """The folder of this fake, made by the fixture."""
    return Path(os.environ["FAKE_LIMA"])


def scenario(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The run's scenario, with what an instance's template says on top."""
    chosen = dict(DEFAULTS)
    path = world() / "scenario.json"
    if path.exists():
        chosen.update(json.loads(path.read_text()))
    own = ((config or {}).get("env") or {}).get(SCENARIO_VARIABLE)
    return {**chosen, **(json.loads(own) if own else {})}


def record(program: str, argv: list[str]) -> None:
    """Add a call to calls.jsonl; one write, so that parallel calls don't mix."""
    env = {key: os.environ[key] for key in sorted(os.environ) if not key.startswith("FAKE_")}
    _append("calls.jsonl", {"program": program, "argv": argv, "env": env, "pid": os.getpid()})


def refuse(why: str) -> NoReturn:
    """A call that the real program wouldn't take, or that the engine shouldn't make."""
    _append("unknown-calls", {"argv": sys.argv, "why": why})
    print(f"fake limactl: {why}: {sys.argv[1:]}", file=sys.stderr)
    raise SystemExit(2)


def _append(name: str, entry: Mapping[str, Any]) -> None:
    with (world() / name).open("ab", buffering=0) as file:
        file.write(json.dumps(entry).encode() + b"\n")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def log_line(level: str, msg: str, **more: Any) -> str:
    """A line as logrus writes it with --log-format=json: keys sorted."""
    return json.dumps({**more, "level": level, "msg": msg, "time": now()}, sort_keys=True)


def lima_user() -> str:
    """Lima's choice: the host user's name, where Linux would take it."""
    name = pwd.getpwuid(os.getuid()).pw_name
    return "lima" if name in ("root", "admin") else name


def driver_pidfile(config: Mapping[str, Any]) -> str:
    return "vz.pid" if config["vmType"] == "vz" else "qemu.pid"


def pid_of(path: Path) -> int:
    """The living process a pid file names; 0 where there is none."""
    try:
        pid = int(path.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid


def kill(pid: int, seconds: float = 2.0) -> None:
    """SIGKILL, and wait for the death of what needn't be a child of ours."""
    import psutil

    with contextlib.suppress(psutil.Error, ProcessLookupError):
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + seconds
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)


def kill_guest(root: Path) -> None:
    """End the guest's processes, which a real VM takes along when it ends."""
    for pid in pids_with("FAKE_GUEST", str(root)):
        kill(pid)


def pids_with(variable: str, value: str) -> list[int]:
    """Living processes of this user that have ``variable`` in their environment."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(variable) == value:
                found.append(process.pid)
    return found
