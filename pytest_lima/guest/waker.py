"""Runs inside a guest: stays in the memory that is kept, and makes the guest another on waking up.

It is sent to the guest's own Python, 3.7 or later, as a text, and runs there as root. All that
it needs is loaded before the memory is kept, so that waking up starts no process: on an emulated
CPU sudo, a shell and its ten commands took two seconds.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import socket
import sys
import time
from pathlib import Path

# Sockets of the guest end in a folder that its login user may pass, and nobody may look into.
SOCKET = "/run/pytest-lima/wake.sock"
_ON_DISK = "/var/lib/pytest-lima/token"
_PATIENCE = 120.0  # seconds of the guest's: twice what a waking up may take
_CALL_TIMEOUT = 20.0
_LONGEST = 65536
_BLOCK = 4096
_RESEED = 0x5207  # RNDRESEEDCRNG (linux/random.h): without it a seed changes nothing at once


class Waker:
    """What stays in the memory.

    Attributes:
        root: Empty; a test's own folder.
        token: Lies here, in the memory, and on the disk: the two have to be of the same moment.
        sessions: Pid and beginning of what serves an SSH connection, to be ended, as those do not
            outlive their host's side.
    """

    def __init__(self, root: str, token: str) -> None:
        self.root = root
        self.token = token
        self.sessions: list[tuple[int, str]] = []

    def keep(self, owner: int) -> socket.socket:
        """Write down all that is to be found after waking up; the socket to be woken over."""
        self._write_token()
        if self.token_on_disk() != self.token:
            raise OSError("what is on its disk can't be read past its memory")
        pids = [int(path.name) for path in self._at("/proc").iterdir() if path.name.isdigit()]
        self.sessions = [(pid, self._session(pid)) for pid in pids if self._session(pid)]
        return self._listener(owner)

    def serve(self, listener: socket.socket) -> None:
        """Wait for the one request; an error of another's call is its own."""
        listener.settimeout(_PATIENCE)
        while True:
            connection = listener.accept()[0]
            try:
                connection.settimeout(_CALL_TIMEOUT)
                line = connection.makefile("rb").readline(_LONGEST)
                if line.endswith(b"\n"):
                    connection.sendall(json.dumps(self.answer(line)).encode() + b"\n")
                    return
            except OSError:
                pass
            finally:
                connection.close()

    def answer(self, line: bytes) -> dict[str, object]:
        """Do what was asked for, and tell what proves that it was done."""
        try:
            self.become(**json.loads(line))
            return {"memory": self.token, "disk": self.token_on_disk(), "time": time.time()}
        except (OSError, ValueError, TypeError) as error:
            return {"problem": str(error)}

    def become(
        self, now: float, seed: str, iid: str, host: str | None, machine: str, old: str
    ) -> None:
        """Be another guest, at another time.

        Args:
            now: The time, seconds since the epoch.
            seed: Random bytes, in hexadecimal digits.
            iid: Lima's id of this start, which it waits for in the guest; empty for none.
            host: The host name; None to stay who it is.
            machine: The machine id.
            old: The host name that it has.
        """
        time.clock_settime(time.CLOCK_REALTIME, now)
        for pid, begun in self.sessions:
            if self._session(pid) == begun:
                os.kill(pid, signal.SIGKILL)
        with self._at("/dev/urandom").open("wb", 0) as random:
            random.write(bytes.fromhex(seed))
            fcntl.ioctl(random, _RESEED)
        if host is not None:
            self._rename(host, old)
            self._be_machine(machine)
        for name in ("lima-ssh-ready", "lima-boot-done") if iid else ():
            self._write("/run/" + name, iid + "\n")

    def token_on_disk(self) -> str:
        """The token as the disk has it, past all caches."""
        file = os.open(self._at(_ON_DISK), os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, _BLOCK) as block:  # aligned, as that takes
                return block[: os.readv(file, [block])].decode()
        finally:
            os.close(file)

    def _write_token(self) -> None:
        path = self._at(_ON_DISK)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with new.open("w") as file:
            file.write(self.token)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def _session(self, pid: int) -> str:
        """When a process began that serves an SSH connection; empty for another.

        The sshd that listens is a child of process 1, theirs are not.
        """
        try:
            stat = self._read(f"/proc/{pid}/stat")
        except OSError:
            return ""  # it has ended
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        return fields[19] if name.startswith("sshd") and fields[1] != "1" else ""

    def _listener(self, owner: int) -> socket.socket:
        path = self._at(SOCKET)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o711)
        if path.exists():
            path.unlink()  # of a waker that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        os.chown(path, owner, -1)
        listener.listen(1)
        return listener

    def _rename(self, host: str, old: str) -> None:
        socket.sethostname(host)
        self._write("/etc/hostname", host + "\n")
        self._write("/etc/hosts", self._read("/etc/hosts").replace(old, host))

    def _be_machine(self, machine: str) -> None:
        """Have another id; journald goes on in the folder of the old one, journalctl looks here."""
        before = self._read("/etc/machine-id").strip()
        for journals in (self._at("/run/log/journal"), self._at("/var/log/journal")):
            if before and (journals / before).is_dir():
                (journals / machine).symlink_to(before)
        self._write("/etc/machine-id", machine + "\n")

    def _read(self, path: str) -> str:
        return self._at(path).read_text(errors="replace")

    def _write(self, path: str, text: str) -> None:
        self._at(path).write_text(text)

    def _at(self, path: str) -> Path:
        return Path(self.root + path)


def main(root: str, token: str) -> None:
    """Keep, leave a process behind that waits to be woken, and print its pid."""
    os.umask(0o077)
    waker = Waker(root, token)
    try:
        listener = waker.keep(int(os.environ.get("SUDO_UID", "0")))
    except OSError as error:
        sys.exit(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    pid = os.fork()
    if pid:
        sys.stdout.write(f"{pid}\n")
        return
    try:
        _leave()
        waker.serve(listener)
    except OSError:
        pass  # nobody came
    finally:
        Path(root + SOCKET).unlink()


def _leave() -> None:
    """Outlive the session that has started it, and hold nothing of it."""
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


if __name__ == "__main__":
    main(*sys.argv[1:])
