"""qemu-system-*: the accelerator's test guest of 512 bytes, or the process of a VM."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from fakelima import common
from fakelima.common import refuse

_PROBE = ["-cpu", "host", "-m", "16", "-display", "none", "-nodefaults", "-no-reboot"]


def main(name: str, argv: list[str]) -> None:
    """Run one QEMU."""
    common.record(name, argv)
    if not name.startswith("qemu-system-"):
        refuse("the engine only looks whether it is there")
    if argv[:1] == ["-accel"] and argv[2:10] == _PROBE:
        _probe(argv[1], argv[10:])
    match = re.search(
        r"-name lima-(\S+) -pidfile (\S+) -netdev \S+,fd=(\d+) -smbios \S+serial=(\S+)$",
        " ".join(argv),
    )
    if match is None:
        refuse("neither the probe nor a VM of Lima's")
    _machine(Path(match[2]), int(match[3]), match[4])


def _probe(accelerator: str, rest: list[str]) -> NoReturn:
    if accelerator not in ("kvm", "hvf"):
        refuse("a probe of no hardware accelerator")
    wanted = common.scenario()["probe"]
    if rest == ["-machine", "virt", "-S", "-monitor", "none"]:
        # Paused, with nothing that could end it: a working accelerator waits to be killed.
        wanted = "hang" if wanted == 33 else wanted
    else:
        drive = re.fullmatch(r"file=(.+),format=raw,if=ide", rest[-1])
        if (
            rest[:-1] != ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-drive"]
            or not drive
        ):
            refuse("not the probe's devices")
        sector = Path(drive[1]).read_bytes()
        if len(sector) != 512 or not sector.endswith(b"\x55\xaa"):
            refuse("no boot sector")
    while wanted == "hang":
        time.sleep(60)
    if wanted != 33:
        print(f"{accelerator}: the fake's accelerator is broken", file=sys.stderr)
    raise SystemExit(wanted)


def _machine(pidfile: Path, fd: int, iid: str) -> None:
    folder = pidfile.parent
    config = json.loads((folder / "fake.json").read_text())
    scenario = common.scenario(config)
    if scenario["qemu_stderr"]:
        print("\n".join(scenario["qemu_stderr"]), file=sys.stderr)
        raise SystemExit(1)
    pidfile.write_text(f"{os.getpid()}\n")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from fakelima.machine import Machine

    Machine(folder, iid, socket.socket(fileno=fd), scenario, config).run()
