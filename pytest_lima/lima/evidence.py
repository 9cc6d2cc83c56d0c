"""What a start that failed leaves behind to explain it."""

from __future__ import annotations

from pathlib import Path

from pytest_lima.errors import LimaError
from pytest_lima.lima import logs, messages, paths

START_LOG = "limactl-start.log"


def cause(instance_dir: Path) -> str:
    """QEMU's own words, which Lima has in its log only, else limactl's; empty for none."""
    agent = logs.read(instance_dir / logs.HOST_AGENT)
    said = [line for line in agent.splitlines() if "qemu[stderr]" in line]
    return messages.texts(said[-3:]) or messages.complaint(
        logs.read(instance_dir / "pl" / START_LOG)
    )


def keep(home: Path, name: str) -> Path:
    """Copy the logs of an instance, soon to be deleted, into one file."""
    folder = home / name
    target = paths.evidence_folder(home) / f"{name}.log"
    parts = (folder / logs.HOST_AGENT, logs.console(folder), folder / "pl" / START_LOG)
    target.write_text("".join(f"==> {part.name}\n{logs.read(part)}\n" for part in parts))
    return target


def port_was_taken(error: LimaError) -> bool:
    """Whether another process has got the SSH port that Lima had found to be free.

    Lima lets go of it before QEMU takes it: two starts at once, and one of them is too late.
    """
    return "Could not set up host forwarding rule" in (error.seen or "")


def panic(instance_dir: Path) -> str:
    """How the kernel of a guest that boots has panicked, with the line before; empty if not."""
    said = logs.read(logs.console(instance_dir))
    if "Kernel panic - not syncing" not in said:
        return ""
    lines = [line for line in said.splitlines() if "Oops: " in line or "Kernel panic - " in line]
    return " | ".join(map(logs.printable, lines[-3:]))


def emulator_erred(error: LimaError) -> bool:
    """Whether a kernel has met an instruction that it had replaced: QEMU's emulation at fault."""
    return "Oops: int3" in (error.seen or "")
