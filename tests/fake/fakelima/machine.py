"""The guest: boots, runs its provision scripts as Lima's boot.sh does, has a power button.

Commands really run, by this host's /bin/sh. Absolute paths in them are rewritten to a root of
the guest's own, and PATH has nothing but a list of this host's tools and the stand-ins of
``guest_bin``, so that a command the fake doesn't know is not found.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakelima import cloudinit, common, disk
from fakelima.engines import Engines
from fakelima.sshd import Sshd

_SHIMS = Path(__file__).parents[1] / "guest_bin"
_TOOLS = (
    "[ awk base64 basename bash cat chgrp chmod cmp cp cut dd diff dirname du echo env expr "
    "false find grep gunzip gzip head install kill ln ls md5sum mkdir mkfifo mktemp mv nl nohup "
    "od paste printf ps pwd readlink realpath rm rmdir sed seq setsid sh sha256sum sleep sort stat "
    "stty sync tail tar tee test timeout touch tr true uname uniq wc xargs yes"
)
_FOLDERS = (
    "bin dev etc/ssh mnt/lima-cidata opt proc/sys/kernel/random root run/fake/units srv tmp "
    "usr var/lib var/log var/tmp"
)
# Not after a word, a slash, a dot or a brace: those are inside a longer path or a variable's.
_ABSOLUTE = re.compile(
    r"(?<![\w./$}~*%-])/(?=(?:bin|sbin|dev/console|etc|home|mnt|opt|proc/sys/kernel/random|root|run"
    r"|srv|tmp|usr|var)(?:/|\b))"
)
_POLL = 0.02


class Machine:
    """One guest."""

    def __init__(
        self, folder: Path, iid: str, listener: socket.socket, scenario: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.dir = folder
        self.root = folder / "guest"
        self.iid = iid
        self.scenario = scenario
        self.config = config
        self.user: str = config["user"]["name"]
        self.home: str = config["user"]["home"]
        self._console_lock = threading.Lock()
        vz = config["vmType"] == "vz"
        self._console = folder / ("serialv.log" if vz else "serial.log")
        self._console.write_bytes(b"")
        self._sshd = Sshd(self, listener)
        self._engines = Engines(self)

    def run(self) -> None:
        """Boot, and reboot as often as asked, until it powers off."""
        self._make_root()
        self._sshd.start()
        while True:
            self._boot()
            if self._until_power_button() == "poweroff":
                return
            self._sshd.close()
            self._engines.close()
            common.kill_guest(self.root)
            shutil.rmtree(self.root / "run")  # a tmpfs

    def path(self, guest_path: str) -> Path:
        """Where an absolute path of the guest lies on this host."""
        return Path(f"{self.root}/{guest_path.lstrip('/')}")

    def say(self, text: str) -> None:
        """Print on the console, with its line ends."""
        with self._console_lock, self._console.open("ab") as file:
            file.write(text.replace("\n", "\r\n").encode())

    def rewrite(self, line: str) -> str:
        """A command line, or a script, with its absolute paths below the guest's root."""
        return _ABSOLUTE.sub(f"{self.root}/", line)

    def popen(self, argv: list[str], user: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a process in the guest, in a session of its own as sshd does."""
        home = self.path("/root" if user == "root" else self.home)
        env = {
            "PATH": str(self.path("/bin")), "HOME": str(home), "USER": user, "LOGNAME": user,
            "SHELL": "/bin/sh", "LANG": "C.UTF-8", "FAKE_LIMA": os.environ["FAKE_LIMA"],
            "FAKE_GUEST": str(self.root), "FAKE_USER": user, "FAKE_LOGIN": self.user,
            "FAKE_PYTHON": sys.executable, "FAKE_FOLDER": str(_SHIMS.parent),
            **cloudinit.environ(self, user),
        }  # fmt: skip
        return subprocess.Popen(argv, env=env, cwd=home, start_new_session=True, bufsize=0,
                                **streams)  # fmt: skip

    def _boot(self) -> None:
        self.say("[    0.000000] Linux version 6.12.0-fake\n")
        self._make_run()
        self.path("/proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        time.sleep(self.scenario["boot_seconds"])
        if self._panics():
            return
        keys = self._sshd.make_keys()
        for number, line in enumerate(keys):
            self.path(f"/etc/ssh/ssh_host_{number}_key.pub").write_text(f"{line}\n")
        cloudinit.place_scripts(self)
        self._sshd.open()
        threading.Thread(target=self._provision, args=(keys,), daemon=True).start()

    def _panics(self) -> bool:
        """Whether this boot of the instance is one of those in which its kernel gives up."""
        counter = self.dir / "fake-panics"
        before = int(counter.read_text()) if counter.exists() else 0
        if before == self.scenario["panics"]:
            return False
        counter.write_text(str(before + 1))
        self.say("\n".join(self.scenario["panic"]) + "\n")
        return True

    def _provision(self, keys: list[str]) -> None:
        cloudinit.run(self)
        if self.scenario["console_keys"]:
            block = "\n".join(f"{key} root@lima-{self.dir.name}" for key in keys)
            self.say("-----BEGIN SSH HOST KEY KEYS-----\n"
                     f"{block}\n-----END SSH HOST KEY KEYS-----\n")  # fmt: skip
        self.say(f"\nFake GNU/Linux 1 lima-{self.dir.name} ttyS0\n\nlima-{self.dir.name} login: ")
        if self.scenario["dies_after"] is not None:
            time.sleep(self.scenario["dies_after"])
            os._exit(137)

    def _until_power_button(self) -> str:
        button = self.path("/run/fake/power")
        while not button.exists():
            self._engines.look()
            time.sleep(_POLL)
        time.sleep(_POLL)  # the command that pressed it mostly gets its answer out
        return button.read_text().strip()

    def _make_root(self) -> None:
        if self.root.exists():
            shutil.rmtree(self.root / "run", ignore_errors=True)
            shutil.rmtree(self.root / "bin")
        else:
            disk.load(self.dir)
        for name in [*_FOLDERS.split(), self.home.lstrip("/")]:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for alias in ("usr/bin", "usr/sbin", "sbin"):
            link = self.root / alias
            if not link.is_symlink():
                link.symlink_to(self.root / "bin")
        for tool in _TOOLS.split():
            found = shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin")
            if found:
                (self.root / "bin" / tool).symlink_to(found)
        for shim in _SHIMS.iterdir():
            target = self.root / "bin" / shim.name
            shutil.copyfile(shim, target)
            target.chmod(0o755)
        self.path("/etc/hostname").write_text(f"lima-{self.dir.name}\n")
        console = self.path("/dev/console")
        console.unlink(missing_ok=True)
        os.mkfifo(console)
        threading.Thread(target=self._read_console, args=(console,), daemon=True).start()

    def _make_run(self) -> None:
        self.path("/run/systemd/system").mkdir(parents=True, exist_ok=True)
        machine_id = self.path("/etc/machine-id")
        if not machine_id.exists() or not machine_id.stat().st_size:
            machine_id.write_text(f"{uuid.uuid4().hex}\n")
        units = self.path("/run/fake/units")
        units.mkdir(parents=True, exist_ok=True)
        self.path("/run/fake/clock").write_text(str(self.scenario["clock_offset"]))
        if self.scenario["clock_stuck"]:
            self.path("/run/fake/clock-stuck").touch()
        if not self.scenario["freezes"]:
            self.path("/run/fake/frozen-never").touch()

    def _read_console(self, path: Path) -> None:
        """A pipe, as scripts open /dev/console with ``>``, which would empty a file."""
        fd = os.open(path, os.O_RDWR)
        while data := os.read(fd, 65536):
            if self.scenario["console_keys"]:
                self.say(data.decode(errors="replace"))
