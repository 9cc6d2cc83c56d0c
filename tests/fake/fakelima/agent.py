"""``limactl hostagent``: starts the VM's process, tells events, ends with the VM.

Its standard output is ha.stdout.log, its standard error ha.stderr.log, as with the real one.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from fakelima import common, disk

_POLL = 0.01


def main(args: list[str]) -> None:
    """Run until the VM ends or SIGINT asks for its end."""
    folder = Path(os.environ["LIMA_HOME"]) / args[-1]
    Agent(folder).run()


class Agent:
    """One host agent."""

    def __init__(self, folder: Path) -> None:
        self._dir = folder
        self._config: dict[str, Any] = json.loads((folder / "fake.json").read_text())
        self._scenario = common.scenario(self._config)
        # As in meta-data: a new one for each start, which is what cloud-init and boot.sh see.
        self._iid = f"iid-{time.time():.0f}"
        self._port = 0
        self._asked_to_end = False

    def run(self) -> None:
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGTERM, self._end)
        (self._dir / "ha.pid").write_text(f"{os.getpid()}\n")
        api = socket.socket(socket.AF_UNIX)
        api.bind(str(self._dir / "ha.sock"))
        api.listen()
        self._log("debug", "Hostagent starting")
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            self._port = listener.getsockname()[1]
            self._write_ssh_config()
            driver: Driver | Vz
            if self._config["vmType"] == "vz":
                driver = Vz(self._dir, self._iid, listener, self._scenario, self._config)
            else:
                driver = Driver(self._dir, self._iid, listener, self._config, self._log)
            self._log("info", f"Starting {type(driver).__name__} (hint: see its serial*.log)")
            driver.start()
            self._tell(sshLocalPort=self._port)
            self._watch(driver)
        common.kill_guest(self._dir / "guest")
        if isinstance(driver, Vz) and not self._asked_to_end:
            disk.save(self._dir)
        self._tell(exiting=True)
        for path in [*self._dir.glob("*.pid"), *self._dir.glob("*.sock")]:
            path.unlink(missing_ok=True)

    def _watch(self, driver: Driver | Vz) -> None:
        told = False
        marker = self._dir / "guest" / "run" / "lima-boot-done"
        while driver.alive():
            if self._asked_to_end:
                driver.stop()
                return
            if not told and marker.exists() and marker.read_text().strip() == self._iid:
                told = True
                errors = self._scenario["degraded"]
                self._tell(running=True, sshLocalPort=self._port,
                           **({"degraded": True, "errors": errors} if errors else {}))  # fmt: skip
            time.sleep(_POLL)

    def _end(self, *_: object) -> None:
        self._asked_to_end = True

    def _tell(self, **status: Any) -> None:
        """An event; keys without a value are left out, as Go's omitempty does."""
        line = json.dumps({"time": common.now(), "status": status}).encode() + b"\n"
        os.write(1, line)

    def _log(self, level: str, msg: str) -> None:
        os.write(2, common.log_line(level, msg).encode() + b"\n")

    def _write_ssh_config(self) -> None:
        path = self._dir / "ssh.config"
        key = self._dir.parent / "_config" / "user"
        path.write_text(
            f'Host lima-{self._dir.name}\n  IdentityFile "{key}"\n  StrictHostKeyChecking no\n'
            f"  UserKnownHostsFile /dev/null\n  BatchMode yes\n  IdentitiesOnly yes\n"
            f"  User {self._config['user']['name']}\n  ControlMaster auto\n"
            f'  ControlPath "{self._dir / "ssh.sock"}"\n  ControlPersist yes\n'
            f"  Hostname 127.0.0.1\n  Port {self._port}\n"
        )
        path.chmod(0o600)


class Driver:
    """QEMU: a process of its own, from QEMU_SYSTEM_<ARCH> where that is set."""

    def __init__(
        self, folder: Path, iid: str, listener: socket.socket, config: dict[str, Any], log: Any
    ) -> None:
        arch = config["arch"]
        exe = os.environ.get(f"QEMU_SYSTEM_{arch.upper()}", f"qemu-system-{arch}")
        fd = listener.fileno()
        self._argv = [
            *shlex.split(exe), "-name", f"lima-{folder.name}", "-pidfile", str(folder / "qemu.pid"),
            # The listening socket is handed over, so parallel starts can't race for the port.
            "-netdev", f"user,id=net0,fd={fd}", "-smbios", f"type=1,serial={iid}",
        ]  # fmt: skip
        self._fd = fd
        self._listener = listener
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._popen = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, pass_fds=[self._fd], start_new_session=True,
        )  # fmt: skip
        self._listener.close()
        self._reader.start()

    def alive(self) -> bool:
        if self._popen is None or self._popen.poll() is None:
            return True
        self._reader.join()
        self._log("info", "QEMU has exited")
        return False

    def stop(self) -> None:
        if self._popen is not None:
            self._popen.terminate()
            self._popen.wait()

    def _read(self) -> None:
        if self._popen is not None and self._popen.stderr is not None:
            for line in self._popen.stderr:
                self._log("debug", f"qemu[stderr]: {line.decode().rstrip()}")


class Vz:
    """Virtualization.framework: the VM lives in the host agent's own process."""

    def __init__(
        self, folder: Path, iid: str, listener: socket.socket, scenario: Any, config: Any
    ) -> None:
        self._parts = (folder, iid, listener, scenario, config)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        from fakelima.machine import Machine

        folder = self._parts[0]
        (folder / "vz.pid").write_text(f"{os.getpid()}\n")
        identifier = folder / "vz-identifier"
        if not identifier.exists() or not identifier.stat().st_size:
            identifier.write_text(uuid.uuid4().hex)
        self._thread = threading.Thread(target=Machine(*self._parts).run, daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._thread is None or self._thread.is_alive()

    def stop(self) -> None:
        """The process ends now, and its threads with it."""
