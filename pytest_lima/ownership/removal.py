"""Removing an instance: all of it, and nothing else.

``limactl delete --force`` kills whatever process has the pid in a pid file (Lima:
pkg/instance/stop.go), and a create or start that was left alone goes on behind its back. So
the processes of an instance are found by their command lines and ended first, and a pid file
that names a stranger is taken away before Lima reads it.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pytest_lima.errors import CleanupError, LimactlMissingError, LimaError
from pytest_lima.guest import sockets
from pytest_lima.lima import identity, paths
from pytest_lima.lima.limactl import Limactl

_PID_FILES = ("ha.pid", "qemu.pid", "vz.pid", "krunkit.pid")
_ROUNDS = 3


def remove_for_good(limactl: Limactl, name: str, warn: Callable[[str], None]) -> None:
    """Remove an instance that doesn't come again, and so the states that were kept of it.

    Raises:
        CleanupError: Something of it is left.
    """
    remove(limactl, name, warn)
    remove_snapshots(limactl.home, name)


def remove_snapshots(home: Path, name: str) -> None:
    """Remove the states that were kept of an instance.

    Raises:
        CleanupError: Something of them is left.
    """
    folder = home / paths.SNAPSHOTS / name
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CleanupError(
            f"the snapshots of {name} can't be removed",
            seen=str(error),
            remedy=f"rm -r {shlex.quote(str(folder))}",
        ) from error


def remove(limactl: Limactl, name: str, warn: Callable[[str], None]) -> None:
    """End every process of an instance and delete it.

    Args:
        limactl: With the instance's LIMA_HOME.
        name: Of an instance that has a record, so it is ours.
        warn: Gets what was found and left alone.

    Raises:
        CleanupError: Something of it is left.
    """
    folder = limactl.home / name
    halt(folder, warn)
    paths.template_file(limactl.home, name).unlink(missing_ok=True)
    if not folder.is_dir():
        return
    try:
        limactl.delete(name)
    except (CleanupError, LimactlMissingError) as error:
        if not folder.exists():
            return  # another process has been at it too: who made it, or who prunes
        _remove_folder(folder, error)
        warn(
            f"{name} could not be deleted by limactl ({error.seen}); its folder was removed instead"
        )


def halt(folder: Path, warn: Callable[[str], None]) -> None:
    """End what works on an instance, and remove what would keep it from being started again.

    Raises:
        CleanupError: A process doesn't end.
    """
    end_processes(folder)
    for stranger in _disown_strangers(folder):
        warn(stranger)
    # As `limactl stop --force` does. Lima takes the dead for running until their parent has
    # collected them (signal 0), and a host agent can't listen where one has listened.
    with suppress(FileNotFoundError):  # removed by another process just now
        for file in [*folder.glob("*.pid"), *folder.glob("*.sock"), *folder.glob("*.tmp")]:
            file.unlink(missing_ok=True)


def end_processes(folder: Path) -> None:
    """Kill what works on an instance, until nothing does.

    Raises:
        CleanupError: A process doesn't end.
    """
    for _ in range(_ROUNDS):  # one may just have started another
        found = list(identity.find(lambda argv: belongs(argv, folder)))
        if not found:
            return
        left = identity.kill(found)
    if left:
        raise CleanupError(
            f"processes of {folder.name} can't be ended",
            seen="; ".join(f"{one.pid} {' '.join(identity.command_line(one.pid))}" for one in left),
            remedy="kill -9 " + " ".join(str(one.pid) for one in left),
        )


def belongs(argv: Sequence[str], folder: Path) -> bool:
    """Whether a command line is one of the instance in ``folder``, by exact arguments.

    A pager on its log, or a shell in it, isn't: only what Lima or we have started.
    """
    text = str(folder)
    name = folder.name
    words = set(argv)
    return (
        ("hostagent" in words and f"{text}/ha.pid" in words)
        or ("-pidfile" in words and f"{text}/qemu.pid" in words)
        or sockets.is_forward(argv, folder / "pl")
        or argv[0].startswith(f"ssh: {text}/ssh.sock")
        or ("create" in words and f"--name={name}" in words)
        or ("start" in words and argv[-1] == name)
        or ("clone" in words and argv[-1] == name)
    )


def _disown_strangers(folder: Path) -> list[str]:
    """Remove pid files of living processes that aren't the instance's."""
    told = []
    for name in _PID_FILES:
        file = folder / name
        try:
            pid = int(file.read_text())
        except (OSError, ValueError):
            continue
        argv = identity.command_line(pid)
        if identity.of(pid) is None or (argv and belongs(argv, folder)):
            continue
        file.unlink(missing_ok=True)
        told.append(
            f"{file} named process {pid}, which is not the VM's and was left alone: "
            + (" ".join(argv)[:200] or "another user's")
        )
    return told


def _remove_folder(folder: Path, error: LimaError) -> None:
    """What limactl couldn't; its processes are gone by now."""
    try:
        for _ in range(_ROUNDS):
            with suppress(FileNotFoundError):  # another process takes parts of it away
                shutil.rmtree(folder)
    except OSError as problem:
        if isinstance(error, CleanupError):
            raise error from None
        raise CleanupError(
            f"{folder.name} can't be removed",
            seen=str(problem),
            remedy=f"rm -r {shlex.quote(str(folder))}",
        ) from error
