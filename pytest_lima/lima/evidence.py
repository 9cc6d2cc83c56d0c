"""What a start that failed leaves behind to explain it."""

from __future__ import annotations

from pathlib import Path

from pytest_lima.errors import LimaError
from pytest_lima.lima import causes, logs, messages, paths

START_LOG = "limactl-start.log"
_QEMU = "qemu[stderr]: "


def cause(instance_dir: Path) -> str:
    """QEMU's own words, which Lima has in its log only, else limactl's; empty for none."""
    said = _qemu_s_words(instance_dir)
    complaints = [line for line in said if "warning:" not in line] or said
    return "\n".join(complaints[-3:]) or messages.complaint(
        logs.read(instance_dir / "pl" / START_LOG)
    )


def accelerator_failure(instance_dir: Path) -> str:
    """What QEMU has said of an accelerator that can't run the guest; empty if it has not.

    After some of that QEMU stays, with the guest stopped for good: limactl waits on.
    """
    said = "\n".join(line.removeprefix(_QEMU) for line in _qemu_s_words(instance_dir))
    blamed = causes.blames_accelerator(said).splitlines()
    return "\n".join(logs.printable(line) for line in blamed[:3])


def keep(home: Path, name: str) -> Path | str:
    """Copy the logs of an instance, soon to be deleted, into one file; see ``write``."""
    folder = home / name
    target = paths.evidence_folder(home) / f"{name}.log"
    parts = (folder / logs.HOST_AGENT, logs.console(folder), folder / "pl" / START_LOG)
    return write(target, "".join(f"==> {part.name}\n{logs.read(part)}\n" for part in parts))


def write(target: Path, text: str) -> Path | str:
    """Write a file for an error to name: its path, or a text that says why there is none.

    Nothing that goes wrong here may take the place of that error, be it a full disk or a test that
    has replaced what writes, so all of it is caught.
    """
    try:
        target.write_text(text)
    except Exception as error:
        return f"{target} could not be written ({type(error).__name__}: {error})"
    return target


def panic(instance_dir: Path) -> str:
    """How the kernel of a guest that boots has panicked, and on what; empty if it has not."""
    said = logs.read(logs.console(instance_dir))
    found = logs.panic(said)
    oopses = [logs.printable(line) for line in said.splitlines() if "Oops: " in line]
    return " | ".join([*oopses[-1:], found]) if found else ""


def _qemu_s_words(instance_dir: Path) -> list[str]:
    agent = logs.read(instance_dir / logs.HOST_AGENT)
    return messages.texts([line for line in agent.splitlines() if _QEMU in line]).splitlines()


def is_mishap(error: LimaError) -> bool:
    """Whether a start has failed by chance, so that another is likely to do better.

    Lima finds a free SSH port and lets go of it before QEMU takes it: of two starts at once, one
    may be too late. And QEMU 7.2, emulating two processors, now and then executes an instruction
    that the booting kernel has replaced meanwhile (int3), of which that dies.
    """
    said = error.seen or ""
    return "Could not set up host forwarding rule" in said or "Oops: int3" in said
