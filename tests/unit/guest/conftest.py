"""A guest without a VM: a real SSH server on 127.0.0.1 that runs commands on this host.

It runs each command in a session of its own, as sshd does, with a PATH on which `sudo` and
whatever a test adds are small scripts. The folders /run and /var/log of the guest are folders
of the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import cMSG_CHANNEL_SUCCESS

from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.ssh import Connection, connect

SUDO = """\
while [ "$1" != -- ] && [ "${1#-}" != "$1" ]; do
  [ "$1" = -u ] && { AS=$2; export AS; shift; }; shift
done
[ "$1" = -- ] && shift; exec "$@"
"""


def _begin(command: str, channel: paramiko.Channel) -> None:
    """Say what a line says first, for a guest that answers in its place."""
    mark = re.search(r"pytest-lima-([0-9a-f]{16})=", command)
    assert mark
    sign = f"pytest-lima-{mark[1]}=1::\n".encode()
    channel.sendall(sign)
    channel.sendall_stderr(sign)
    said = b""
    while not said.endswith(mark[1].encode() + b"\n"):
        said += channel.recv(1)


class _Sftp(paramiko.SFTPServerInterface):
    """Files of this host; errors as OpenSSH reports them."""

    def __init__(self, server: paramiko.ServerInterface, guest: Guest) -> None:
        super().__init__(server)
        self._guest = guest

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> object:
        try:
            number = os.open(path, flags, 0o644)
            handle = paramiko.SFTPHandle(flags)
            handle.filename = path
            file = os.fdopen(number, "wb" if flags & os.O_WRONLY else "rb")
        except IsADirectoryError:
            return paramiko.SFTP_FAILURE
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
        return handle

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        self._guest.sftp_answers.wait()
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        if attr.st_mode is not None:
            Path(path).chmod(attr.st_mode)
        return paramiko.SFTP_OK


@dataclass
class Guest:
    """The server and what it has seen."""

    address: Address
    host_key: paramiko.PKey
    root: Path
    bin: Path
    # What ran, and how often a shell that stays was asked for.
    commands: list[str] = field(default_factory=list)
    shells: int = 0
    transports: list[paramiko.Transport] = field(default_factory=list)
    # Called with each command before it runs; says how the server misbehaves, if it does.
    misbehave: Callable[[str, paramiko.Channel], bool] = lambda command, channel: False
    # Called in place of a command once it has said, behind the noise, that it began.
    answer: Callable[[str, paramiko.Channel], bool] | None = None
    noise: str = ""
    accepts: bool = True
    user: str = "ann"
    shell: str = "/bin/sh"  # the login user's
    # Sessions a connection may have at once, and seconds until the server has collected a
    # command that ended, which holds its session until then.
    max_sessions: int = 1000
    reaping: float = 0.0
    refused: int = 0
    sftp_answers: threading.Event = field(default_factory=threading.Event)

    @property
    def keys(self) -> HostKeys:
        return HostKeys({self.host_key.get_name(): self.host_key.get_base64()}, "the test")

    def connect(self) -> Connection:
        return connect(self.address, self.keys)

    def file(self, path: str, text: str) -> None:
        """Make a file below the guest's /run or /var/log."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def drop_connections(self) -> None:
        for transport in self.transports:
            transport.close()

    def local(self, command: str) -> str:
        for folder in ("/run/", "/var/log/"):
            command = command.replace(folder, f"{self.root}{folder}")
        return command


class _Transport(paramiko.Transport):
    """Starts a command when the client has been told that it is, as sshd does."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.pending: list[threading.Thread] = []
        self.held: list[int] = []  # channels: once while open, once while their command runs

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]
        if data.asbytes()[:1] == cMSG_CHANNEL_SUCCESS and self.pending:
            self.pending.pop().start()

    def _unlink_channel(self, chanid: int) -> None:
        """The client has closed it."""
        super()._unlink_channel(chanid)  # type: ignore[misc]
        if chanid in self.held:
            self.held.remove(chanid)


class _Server(paramiko.ServerInterface):
    def __init__(self, guest: Guest, key: str, transport: _Transport) -> None:
        self._guest = guest
        self._key = key
        self._transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = self._guest.accepts and username == self._guest.user
        good = known and key.get_base64() == self._key
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if len(set(self._transport.held)) >= self._guest.max_sessions:
            self._guest.refused += 1
            return paramiko.OPEN_FAILED_CONNECT_FAILED  # sshd's answer beyond MaxSessions
        self._transport.held.append(chanid)
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        text = command.decode()
        if text.startswith(": pytest-lima"):
            self._guest.shells += 1
        else:
            self._guest.commands.append(text)
        self._transport.held.append(channel.get_id())
        thread = threading.Thread(target=self._run, args=(text, channel), daemon=True)
        self._transport.pending.append(thread)
        return True

    def _run(self, command: str, channel: paramiko.Channel) -> None:
        try:
            # A client that has had enough may be gone while we still answer.
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                _execute(self._guest, command, channel)
        finally:
            time.sleep(self._guest.reaping)
            self._transport.held.remove(channel.get_id())


def _execute(guest: Guest, command: str, channel: paramiko.Channel) -> None:
    if guest.misbehave(command, channel):
        return
    if guest.answer is not None and not command.startswith(": pytest-lima"):
        channel.sendall(guest.noise.encode())
        _begin(command, channel)
        guest.answer(command, channel)
        return
    child = subprocess.Popen(
        [guest.shell, "-c", guest.local(command)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, cwd=guest.root,
        env={"PATH": f"{guest.bin}:/usr/bin:/bin", "SHELL": "/bin/sh"},
    )  # fmt: skip
    assert child.stdin and child.stdout and child.stderr

    def feed() -> None:
        with contextlib.suppress(OSError), child.stdin:  # type: ignore[union-attr]
            while data := channel.recv(65536):
                child.stdin.write(data)  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]

    def pump(number: int, send: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while data := os.read(number, 65536):
                send(data)

    threads = [
        threading.Thread(target=feed, daemon=True),
        threading.Thread(target=pump, args=(child.stdout.fileno(), channel.sendall)),
        threading.Thread(target=pump, args=(child.stderr.fileno(), channel.sendall_stderr)),
    ]
    for thread in threads:
        thread.start()
    # As sshd: the status goes when the command has ended and its outputs are closed.
    status = child.wait()
    for thread in threads[1:]:
        thread.join()
    child.stdout.close()
    child.stderr.close()
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        if status >= 0:  # sshd tells of a signal in another message, which paramiko passes over
            channel.send_exit_status(status)
        channel.close()


def _serve(listener: socket.socket, guest: Guest, login: str) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        transport = _Transport(sock)
        transport.set_log_channel("pytest_lima.paramiko")
        transport.add_server_key(guest.host_key)
        transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Sftp, guest)
        guest.transports.append(transport)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(event=threading.Event(), server=_Server(guest, login, transport))


def _new_key(path: Path) -> paramiko.Ed25519Key:
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    path.write_bytes(text)
    path.chmod(0o600)  # else ssh doesn't take it
    return paramiko.Ed25519Key.from_private_key_file(str(path))


@pytest.fixture
def guest(tmp_path: Path, tool: Callable[..., Path]) -> Iterator[Guest]:
    root = tmp_path / "guest"
    (root / "run").mkdir(parents=True)
    login = _new_key(tmp_path / "user")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(listener.getsockname()[1], "ann", tmp_path / "user")
        one = Guest(address, _new_key(tmp_path / "host_key"), root, tool("sudo", SUDO).parent)
        thread = threading.Thread(target=_serve, args=(listener, one, login.get_base64()))
        thread.start()
        one.sftp_answers.set()
        yield one
        one.sftp_answers.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        one.drop_connections()
    thread.join(10)


@pytest.fixture
def connection(guest: Guest) -> Iterator[Connection]:
    one = guest.connect()
    yield one
    one.close()


@pytest.fixture
def engine(short_path: Path) -> Iterator[Callable[[Callable[[socket.socket], None]], Path]]:
    """A socket behind which this function answers each connection."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(serve: Callable[[socket.socket], None]) -> Path:
        path = short_path / f"e{len(listeners)}"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listeners.append(listener)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock, contextlib.suppress(OSError):
                        serve(sock)

        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        return path

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(10)
