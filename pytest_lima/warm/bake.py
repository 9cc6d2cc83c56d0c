"""Keep a ready VM: its memory in a file, its disk as a layer under a new one of its own.

The VM stands still for as long as its memory takes to be written (0.3 s for 400 MiB) and runs
on. Nothing of its disk is copied: the file becomes read-only, and is a hard link both in the
kept machine's folder and in the instance's.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_lima.booted import Booted
from pytest_lima.errors import InstanceDiedError, LimaError
from pytest_lima.guest import clock, identity
from pytest_lima.guest.ssh import Connection
from pytest_lima.lima import logs, process
from pytest_lima.lima.qmp import Monitor
from pytest_lima.warm.golden import Golden

# What Lima has in an instance's folder from its creation on and reads at each start. Texts are
# copied, as limactl may write them in place.
TEXTS = ("lima.yaml", "lima-version", "kernel.cmdline")
BINARIES = ("kernel", "initrd", "qemu-efi-code.fd")
LAYER = "disk-"

_MIGRATION_TIMEOUT = 120.0
_TOOL_TIMEOUT = 30.0
_NO_LIMIT = 1 << 62  # QEMU's own limit would be 32 MiB/s
_SPARE = 1024**3


def bake(
    booted: Booted, environ: Mapping[str, str], folder: Path, key: str, template: str
) -> Golden:
    """Keep the running VM in ``folder``; it runs on whether that goes well or not.

    Args:
        booted: The VM, ready, with nobody using it.
        environ: Environment for qemu-img.
        folder: An empty one on the file system of the instance's.
        key: What it will be found by.
        template: What it was made from, for lists.

    Returns:
        The kept machine, to be published.

    Raises:
        LimaError: It could not be kept; nothing of it is used.
        OSError: The disk is full, for one.
        InstanceDiedError: The VM itself has suffered.
    """
    instance = booted.info.dir
    _require_space(folder, booted.info.memory * 1024**2)
    _copy_fixed(instance, folder)
    with (
        identity.keeping(booted.connection, f"lima-{booted.info.name}") as kept,
        clock_kept(booted.connection),
        Monitor(instance / "qmp.sock") as monitor,
        _standing_still(monitor),
    ):
        _write_state(monitor, folder / "state")
        layer, layer_format = _put_layer(monitor, instance, folder, environ)
    return Golden(
        folder, key, booted.info.name, template, kept, booted.address.user,
        dict(booted.keys.keys), layer, layer_format, booted.booted_as, info=booted.info,
        cold_seconds=booted.cold_seconds,
    )  # fmt: skip


def put_disk_aside(instance: Path, folder: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """Keep the disk of a running VM alone, and let it go on writing to a new file.

    It stands still meanwhile, and so does its clock: see ``clock_kept``.

    Returns:
        The name of the layer, in both folders, and its format.

    Raises:
        LimaError: It could not be kept.
        InstanceDiedError: The VM itself has suffered.
    """
    with Monitor(instance / "qmp.sock") as monitor, _standing_still(monitor):
        return _put_layer(monitor, instance, folder, environ)


@contextmanager
def clock_kept(connection: Connection) -> Iterator[None]:
    """Set the clock of a VM that has stood still inside, whether it could be kept or not.

    Raises:
        InstanceDiedError: It can't be set, so the VM isn't what it was.
    """
    try:
        yield
    except InstanceDiedError:
        raise
    except (LimaError, OSError):
        _correct_clock(connection)
        raise
    _correct_clock(connection)


def _correct_clock(connection: Connection) -> None:
    try:
        clock.correct(connection)
    except LimaError as error:
        raise InstanceDiedError(
            "the VM's clock has stood still, and can't be set",
            ran=error.ran,
            seen=error.seen or error.what,
        ) from error


def _require_space(folder: Path, memory: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < memory + _SPARE:
        raise LimaError(
            "there is too little room to keep the VM's memory",
            seen=f"{free >> 20} MiB are free, {(memory + _SPARE) >> 20} MiB are wanted",
            remedy=f"make room on the file system of {folder}",
        )


def _copy_fixed(instance: Path, folder: Path) -> None:
    for name in TEXTS:
        if (instance / name).exists():
            shutil.copyfile(instance / name, folder / name)
    for name in (*BINARIES, *(path.name for path in instance.glob(f"{LAYER}*"))):
        if (instance / name).exists():
            os.link(instance / name, folder / name)
    (folder / logs.KEPT_CONSOLE).write_text(logs.console_text(instance), "utf-8")


@contextmanager
def _standing_still(monitor: Monitor) -> Iterator[None]:
    monitor.execute("stop")
    try:
        yield
    finally:
        try:
            monitor.execute("cont")
        except LimaError as error:
            raise InstanceDiedError("the VM stands still for good", seen=error.seen) from error


def _write_state(monitor: Monitor, path: Path) -> None:
    """The migration stream, written by QEMU itself to a file that we open."""
    monitor.execute("migrate-set-parameters", {"max-bandwidth": _NO_LIMIT})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        monitor.pass_file("state", descriptor)
    finally:
        os.close(descriptor)
    monitor.migrate("migrate", {"uri": "fd:state"}, _MIGRATION_TIMEOUT)


def _put_layer(
    monitor: Monitor, instance: Path, folder: Path, environ: Mapping[str, str]
) -> tuple[str, str]:
    """Let the VM go on writing to a new file, with the old one below; the old one's name."""
    device = _disk_of(monitor, instance)
    image = device["inserted"]["image"]
    old, new = (LAYER + secrets.token_hex(4) for _ in range(2))
    for place in (instance, folder):
        os.link(instance / "disk", place / old)
    create_overlay(instance / new, old, image["format"], environ, image["virtual-size"])
    monitor.execute("blockdev-snapshot-sync", {
        "device": device["device"], "snapshot-file": str(instance / new),
        "format": "qcow2", "mode": "existing",
    })  # fmt: skip
    # QEMU may open the file again by the name it knows, Lima will by its own.
    os.link(instance / new, instance / "disk.tmp")
    (instance / "disk.tmp").replace(instance / "disk")
    return old, str(image["format"])


def _disk_of(monitor: Monitor, instance: Path) -> dict[str, Any]:
    disk = (instance / "disk").stat()
    for device in monitor.execute("query-block"):
        file = _file_of(device.get("inserted") or {})
        if file and Path(file).exists() and os.path.samestat(Path(file).stat(), disk):
            return dict(device)
    raise LimaError("QEMU has no device with the instance's disk", ran="query-block")


def _file_of(inserted: Mapping[str, Any]) -> str:
    """The file; QEMU tells a layer that it has put on top itself as a tree of nodes."""
    told = str(inserted.get("file") or "")
    if not told.startswith("json:"):
        return told
    node = json.loads(told.removeprefix("json:"))
    while "filename" not in node and "file" in node:
        node = node["file"]  # of a format, or of a filter such as a throttle
    return str(node.get("filename") or "")


def create_overlay(
    path: Path, layer: str, layer_format: str, environ: Mapping[str, str], size: int | None = None
) -> None:
    """An empty qcow2 on ``layer``, a file beside it.

    Args:
        path: Of the new file.
        layer: The name, relative so that the folder may move.
        layer_format: ``qcow2`` or ``raw``.
        environ: Environment for qemu-img.
        size: Bytes; given for a layer that is in use, which is not opened then.

    Raises:
        LimaError: qemu-img couldn't.
    """
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", layer, "-F", layer_format]
    argv += ["-u", str(path), str(size)] if size else [str(path)]
    done = process.run(argv, env=environ, timeout=_TOOL_TIMEOUT)
    if not done.ok:
        raise LimaError("qemu-img could not make a disk", ran=" ".join(argv), seen=done.stderr)
