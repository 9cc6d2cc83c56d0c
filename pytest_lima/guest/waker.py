"""Runs inside a guest: stays in the memory that is kept, and makes the guest another on waking up.

It is sent to the guest's own Python, 3.6 or later, as a text, and runs there as root. All that
it needs is loaded before the memory is kept, so that waking up starts no process: on an emulated
CPU sudo, a shell and its ten commands took two seconds.
"""

import fcntl
import json
import mmap
import os
import signal
import socket
import sys
import time
from pathlib import Path

# What it exits with where no guest of this kind can be kept.
UNFIT = 3
_FOLDER = "/run/pytest-lima"
_ON_DISK = "/var/lib/pytest-lima/token"
_PATIENCE = 120.0  # seconds of the guest's: twice what a waking up may take
_CALL_TIMEOUT = 20.0
_LONGEST = 65536
_BLOCK = 4096
_RESEED = 0x5207  # RNDRESEEDCRNG (linux/random.h): without it a seed changes nothing at once
_RESTORE = ["iptables-restore", "--noflush", "--wait", "5"]
_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"
_NOT_FOUND = 127
_NAME, _PARENT, _BEGUN = 0, 2, 20  # in /proc/PID/stat, from the name on (proc(5))


def socket_of(token: str) -> str:
    """Where the guest of this token is woken up; no two wakers have the same."""
    return f"{_FOLDER}/wake-{token[:8]}.sock"


class UnfitError(Exception):
    """No guest of this kind can be kept."""


class Waker:
    """What stays in the memory.

    Attributes:
        root: Empty; a test's own folder.
        token: Lies here, in the memory, and on the disk: the two have to be of the same moment.
        sessions: Pid and beginning of what serves an SSH connection, to be ended, as those do not
            outlive their host's side.
        answering: Whether it is too late to end.
    """

    def __init__(self, root: str, token: str) -> None:
        self.root = root
        self.token = token
        self.sessions: dict[int, str] = {}
        self.answering = False

    def keep(self, owner: int) -> socket.socket:
        """Write down all that is to be found after waking up; the socket to be woken over."""
        self._write_token()
        try:
            seen = self.token_on_disk()
        except OSError as error:
            seen = str(error)
        if seen != self.token:
            raise UnfitError(f"what is on its disk can't be read past its memory: {seen}")
        self._note_sessions()
        return self._listener(owner)

    def serve(self, listener: socket.socket) -> None:
        """Wait for the one request; an error of another's call is its own."""
        listener.settimeout(_PATIENCE)
        while True:
            connection = listener.accept()[0]
            try:
                connection.settimeout(_CALL_TIMEOUT)
                connection.sendall(b"awake\n")  # the time that it is told then is of this moment
                line = connection.makefile("rb").readline(_LONGEST)
                if line.endswith(b"\n"):
                    self.answering = True
                    connection.sendall(json.dumps(self.answer(line)).encode() + b"\n")
                    return
            except OSError:
                pass
            finally:
                connection.close()

    def end(self, *_: object) -> None:
        """On SIGTERM, as from systemd when it ends the session that this was begun in."""
        if not self.answering:
            sys.exit()

    def answer(self, line: bytes) -> "dict[str, object]":
        """Do what was asked for, and tell what proves that it was done."""
        try:
            self.become(**json.loads(line))
            return {"memory": self.token, "disk": self.token_on_disk(), "time": time.time()}
        except (OSError, ValueError, TypeError) as error:
            return {"problem": str(error)}

    def become(
        self, now: float, seed: str, iid: str, nat: str, host: "str | None", machine: str, old: str
    ) -> None:
        """Be another guest, at another time.

        Args:
            now: The time, seconds since the epoch.
            seed: Random bytes, in hexadecimal digits.
            iid: Lima's id of this start, which it waits for in the guest.
            nat: Lima's rules of this start, for iptables-restore; empty where it has none.
            host: The host name; None to stay who it is.
            machine: The machine id.
            old: The host name that it has.
        """
        time.clock_settime(time.CLOCK_REALTIME, now)
        with self._at("/dev/urandom").open("wb", 0) as random:
            random.write(bytes.fromhex(seed))
            fcntl.ioctl(random, _RESEED)
        if nat:
            self._route(nat)
        if host is not None:
            self._rename(host, old)
            self._be_machine(machine)
        for name in ("lima-ssh-ready", "lima-boot-done"):
            self._write("/run/" + name, iid + "\n")
        self._end_sessions()

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

    def _note_sessions(self) -> None:
        """The children of an sshd: that which listens, here or in a container, is none of one."""
        found = {}
        for path in self._at("/proc").iterdir():
            if path.name.isdigit():
                try:
                    found[int(path.name)] = self._stat(path.name)
                except OSError:
                    pass  # it has ended
        servers = {pid for pid, stat in found.items() if stat[_NAME].startswith("sshd")}
        self.sessions = {
            pid: found[pid][_BEGUN] for pid in servers if int(found[pid][_PARENT]) in servers
        }

    def _end_sessions(self) -> None:
        for pid, begun in self.sessions.items():
            try:
                if self._stat(pid)[_BEGUN] == begun:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it has ended with another

    def _stat(self, pid: object) -> "list[str]":
        """The fields from the name on; a name may contain anything."""
        name, _, rest = self._read(f"/proc/{pid}/stat").partition("(")[2].rpartition(")")
        return [name, *rest.split()]

    def _listener(self, owner: int) -> socket.socket:
        path = self._at(socket_of(self.token))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o711)  # the login user passes, and looks at nothing
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        os.chown(path, owner, -1)
        listener.listen(1)
        return listener

    def _rename(self, host: str, old: str) -> None:
        socket.sethostname(host)
        self._write("/etc/hostname", host + "\n")
        if self._at("/etc/hosts").exists():
            self._write("/etc/hosts", self._read("/etc/hosts").replace(old, host))

    def _be_machine(self, machine: str) -> None:
        """Have another id; journald goes on in the folder of the old one, journalctl looks here."""
        if not self._at("/etc/machine-id").exists():
            return  # without systemd and D-Bus
        before = self._read("/etc/machine-id").strip()
        for journals in (self._at("/run/log/journal"), self._at("/var/log/journal")):
            if before and (journals / before).is_dir():
                (journals / machine).symlink_to(before)
        self._write("/etc/machine-id", machine + "\n")

    def _route(self, rules: str) -> None:
        """Replace rules of the packet filter; without iptables Lima has made none either."""
        source, sink = os.pipe()
        os.write(sink, rules.encode())  # less than a pipe holds
        os.close(sink)
        pid = os.fork()
        if not pid:
            try:
                os.dup2(source, 0)
                os.execvpe(_RESTORE[0], _RESTORE, {"PATH": _SBIN})  # noqa: S606
            finally:
                os._exit(_NOT_FOUND)
        os.close(source)
        status = os.waitpid(pid, 0)[1]
        if status not in (0, _NOT_FOUND << 8):
            raise OSError("iptables-restore ended with status " + hex(status))

    def _read(self, path: str) -> str:
        return self._at(path).read_text("utf-8", "surrogateescape")

    def _write(self, path: str, text: str) -> None:
        self._at(path).write_text(text, "utf-8", "surrogateescape")

    def _at(self, path: str) -> Path:
        return Path(self.root + path)


def main(root: str, token: str) -> None:
    """Keep, leave a process behind that waits to be woken, and print its pid."""
    os.umask(0o077)
    waker = Waker(root, token)
    try:
        listener = waker.keep(int(os.environ.get("SUDO_UID", "0")))
    except UnfitError as error:
        sys.stderr.write(str(error))
        sys.exit(UNFIT)
    except OSError as error:
        sys.exit(str(error))
    signal.signal(signal.SIGTERM, waker.end)
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
        Path(root + socket_of(token)).unlink()


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
