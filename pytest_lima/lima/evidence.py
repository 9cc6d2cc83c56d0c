"""What a VM that failed to start, or has died, leaves behind to explain it."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_lima.errors import InstanceDiedError, LimaError
from pytest_lima.lima import limactl, logs, paths
from pytest_lima.lima.limactl import InstanceInfo

START_LOG = "limactl-start.log"


def cause(instance_dir: Path) -> str:
    """QEMU's own words, which Lima has in its log only, else limactl's; empty for none."""
    agent = logs.read(instance_dir / logs.HOST_AGENT)
    said = [line for line in agent.splitlines() if "qemu[stderr]" in line]
    return limactl.messages(said[-3:]) or limactl.complaint_of(
        logs.read(instance_dir / "pl" / START_LOG)
    )


def keep(home: Path, name: str) -> Path:
    """Copy the logs of an instance, soon to be deleted, into one file."""
    folder = home / name
    target = paths.evidence_folder(home) / f"{name}.log"
    parts = (folder / logs.HOST_AGENT, logs.console(folder), folder / "pl" / START_LOG)
    target.write_text("".join(f"==> {part.name}\n{logs.read(part)}\n" for part in parts))
    return target


def check_alive(info: InstanceInfo, cause: LimaError | None) -> None:
    """Raise if the VM's process is gone, with what its console said last.

    Raises:
        InstanceDiedError: It is.
    """
    try:
        os.kill(info.driver_pid, 0)
    except ProcessLookupError:
        raise InstanceDiedError(
            f"the VM {info.name} has died",
            seen=logs.tail(logs.console(info.dir), 5) or "nothing on its console",
            remedy="look at its console for a panic, at the host's memory for an OOM kill",
            log=logs.console(info.dir),
        ) from cause
