"""The guest's SSH server: public key logins, commands, SFTP, forwards of its sockets."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakelima import common
from fakelima.sftp import GuestFiles

if TYPE_CHECKING:
    from fakelima.machine import Machine

_CHUNK = 65536
_POLL = 0.02
_MAX_SESSIONS = 10  # sshd's default
_STREAMLOCAL = "direct-streamlocal@openssh.com"


class Sshd:
    """Accepts from the start, as slirp does; answers once it is open."""

    def __init__(self, machine: Machine, listener: socket.socket) -> None:
        # Not on standard error, which Lima takes for QEMU's words.
        log = logging.FileHandler(common.world() / "sshd.log", delay=True)
        logging.getLogger("paramiko").addHandler(log)
        self._machine = machine
        self._listener = listener
        self._keys: list[paramiko.PKey] = []
        self._open = False
        self._held: list[socket.socket] = []
        self._transports: list[paramiko.Transport] = []

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def make_keys(self) -> list[str]:
        """Public host keys as the console shows them; a reboot keeps them."""
        if not self._keys:
            self._keys = [_ed25519(), paramiko.ECDSAKey.generate()]
        shown = [f"{key.get_name()} {key.get_base64()}" for key in self._keys]
        if self._machine.scenario["wrong_host_key"]:
            self._keys = [_ed25519(), paramiko.ECDSAKey.generate()]
        return shown

    def open(self) -> None:
        self._open = self._machine.scenario["sshd"] == "up"

    def close(self) -> None:
        """The guest goes down, and all connections with it."""
        self._open = False
        for transport in self._transports:
            transport.close()
        self._transports.clear()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._machine.scenario["sshd"] == "silent":
                self._held.append(sock)
                continue
            if not self._open:
                sock.close()
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = _Transport(sock)
            for key in self._keys:
                transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, GuestFiles, self._machine)
            self._transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(threading.Event(), _Server(self._machine, transport))


def _ed25519() -> paramiko.Ed25519Key:
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return paramiko.Ed25519Key(file_obj=io.StringIO(text.decode()))


class _Transport(paramiko.Transport):
    """Knows the paths of socket forwards, which paramiko doesn't parse.

    And answers a request before what was asked for begins: a command that has ended before its
    client knows that it was granted is a refusal to it.
    """

    streamlocal_path = ""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.once_answered: list[threading.Thread] = []

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]
        while threading.current_thread() is self and self.once_answered:
            self.once_answered.pop().start()

    def _parse_channel_open(self, m: paramiko.Message) -> None:
        if m.get_text() == _STREAMLOCAL:
            for _ in range(3):  # the channel's number, window and packet size
                m.get_int()
            self.streamlocal_path = m.get_text()
        m.rewind()
        super()._parse_channel_open(m)  # type: ignore[misc]

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        """A channel was granted: forwards go where they were asked to go."""
        target = self.server_object.targets.pop(channel.chanid, None)
        if target is None:
            super()._queue_incoming_channel(channel)  # type: ignore[misc]
        else:
            threading.Thread(target=_forward, args=(channel, target), daemon=True).start()


class _Server(paramiko.ServerInterface):
    """What one connection may do."""

    def __init__(self, machine: Machine, transport: _Transport) -> None:
        self._machine = machine
        self._transport = transport
        self.targets: dict[int, tuple[int, Any]] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        while (self._machine.dir / common.LOGINS_HELD).exists():
            time.sleep(_POLL)
        public = (self._machine.dir.parent / "_config" / "user.pub").read_text().split()
        known = username == self._machine.user and key.get_base64() == public[1]
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind == _STREAMLOCAL:
            path = self._machine.path(self._transport.streamlocal_path)
            self.targets[chanid] = (socket.AF_UNIX, str(path))
        elif kind != "session":
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        elif len(self._transport._channels) >= _MAX_SESSIONS:
            return paramiko.OPEN_FAILED_RESOURCE_SHORTAGE
        return paramiko.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        del origin
        if destination[0] not in ("127.0.0.1", "localhost"):
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        self.targets[chanid] = (socket.AF_INET, ("127.0.0.1", destination[1]))
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        run = threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True)
        self._transport.once_answered.append(run)
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        pipe = subprocess.PIPE
        argv = ["/bin/sh", "-c", self._machine.rewrite(command)]
        process = self._machine.popen(
            argv, self._machine.user, stdin=pipe, stdout=pipe, stderr=pipe
        )
        threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True).start()
        hide = str(self._machine.root).encode()
        readers = [
            threading.Thread(target=_drain, args=(process.stdout, channel.sendall, hide)),
            threading.Thread(target=_drain, args=(process.stderr, channel.sendall_stderr, hide)),
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        status = process.wait()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if status >= 0:  # for a signal sshd sends no status
                channel.send_exit_status(status)
            channel.close()


def _feed(channel: paramiko.Channel, stdin: Any) -> None:
    with contextlib.suppress(OSError):
        while data := channel.recv(_CHUNK):
            stdin.write(data)
    with contextlib.suppress(OSError):
        stdin.close()


def _drain(stream: Any, send: Callable[[bytes], None], hide: bytes) -> None:
    """Pass output on, with paths as the guest would see them.

    What may be the beginning of the hidden root waits for the rest of it.
    """
    held = b""
    with stream, contextlib.suppress(OSError):
        while data := stream.read(_CHUNK):
            held = (held + data).replace(hide, b"")
            keep = next((n for n in range(len(hide) - 1, 0, -1) if held.endswith(hide[:n])), 0)
            ready, held = held[: len(held) - keep], held[len(held) - keep :]
            send(ready)
        send(held)


def _forward(channel: paramiko.Channel, target: tuple[int, Any]) -> None:
    with channel, socket.socket(target[0]) as sock, contextlib.suppress(OSError):
        sock.connect(target[1])
        back = threading.Thread(target=_pump, args=(sock.recv, channel.sendall), daemon=True)
        back.start()
        _pump(channel.recv, sock.sendall)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        back.join()


def _pump(receive: Callable[[int], bytes], send: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while data := receive(_CHUNK):
            send(data)
