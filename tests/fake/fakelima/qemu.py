"""qemu-system-*: the accelerator's test guest, or the process of a VM."""

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

_ARM = ["-machine", "virt", "-serial", "stdio", "-kernel"]
_X86 = ["-machine", "q35,vmport=off", "-debugcon", "stdio",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel"]  # fmt: skip


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
    _machine(Path(match[2]), int(match[3]), match[4], emulated="tcg,thread=multi" in argv)


def _probe(accelerator: str, rest: list[str]) -> NoReturn:
    if accelerator not in ("kvm", "hvf"):
        refuse("a probe of no hardware accelerator")
    wanted = common.scenario()["probe"]
    if rest[:-1] == _ARM:
        if not Path(rest[-1]).read_bytes():
            refuse("no test guest")
        if wanted == 33:
            print("ran")
            raise SystemExit(0)
    else:
        if rest[:-1] != _X86:
            refuse("not the probe's devices")
        if Path(rest[-1]).read_bytes()[:4] != b"\x02\xb0\xad\x1b":
            refuse("no multiboot kernel")
    while wanted == "hang":
        time.sleep(60)
    if wanted != 33:
        print(f"{accelerator}: the fake's accelerator is broken", file=sys.stderr)
    raise SystemExit(wanted)


def _machine(pidfile: Path, fd: int, iid: str, *, emulated: bool) -> None:
    folder = pidfile.parent
    config = json.loads((folder / "fake.json").read_text())
    scenario = common.scenario(config)
    if scenario["qemu_stderr"]:
        print("\n".join(scenario["qemu_stderr"]), file=sys.stderr)
        raise SystemExit(1)
    pidfile.write_text(f"{os.getpid()}\n")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if scenario["kvm_fails"] and not emulated:
        print("\n".join(scenario["kvm_fails"]), file=sys.stderr, flush=True)
        while True:
            signal.pause()
    from fakelima.machine import Machine

    Machine(folder, iid, socket.socket(fileno=fd), scenario, config).run()
