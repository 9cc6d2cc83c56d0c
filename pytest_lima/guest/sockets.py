"""Sockets of the guest on this host: our own ``ssh -L``, and engines that answer over them.

Lima makes its forwards once and never again (they die with its ControlMaster), and in plain
mode not at all. Ours live in a 0700 folder on short paths, 0600, and are made anew after a
reboot. A forwarded socket accepts before anything listens in the guest, so an engine counts
as ready when it has answered a call.
"""

from __future__ import annotations

import http.client
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytest_lima.errors import ConnectionLostError, LimaError
from pytest_lima.guest.ssh import Address
from pytest_lima.lima import engines, identity, logs, process

if TYPE_CHECKING:
    import h2.connection

_CALL_TIMEOUT = 10.0
_LISTEN_TIMEOUT = 20.0
_CONTAINERD_VERSION = "/containerd.services.version.v1.Version/Version"
_GRPC_EMPTY = b"\0\0\0\0\0"  # not compressed, length 0: google.protobuf.Empty


class NotAnsweringError(LimaError):
    """An engine's socket doesn't answer; while it starts, that is no failure."""


class SocketForward:
    """One ``ssh`` process that forwards sockets of the guest to paths of this host.

    It belongs to the instance: it outlives the process that started it, and others use it.

    Attributes:
        sockets: Host path of each forwarded socket, by its name.
        targets: Its path in the guest.
    """

    def __init__(
        self, address: Address, folder: Path, sockets: Mapping[str, str], environ: Mapping[str, str]
    ) -> None:
        """Start forwarding.

        Args:
            address: The guest's sshd.
            folder: Our folder of the instance, with ``known_hosts`` in it.
            sockets: Guest path of each socket, by name.
            environ: Environment for ssh.

        Raises:
            ConnectionLostError: ssh ended, or didn't listen in time.
        """
        self._place(folder, sockets)
        for path in self.sockets.values():
            path.unlink(missing_ok=True)  # one that was left would look like ours
        self._log = folder / "ssh-forward.log"
        forwards = [f"-L{self.sockets[name]}:{sockets[name]}" for name in sockets]
        argv = [*ssh_command(address, folder), "-N", "-oExitOnForwardFailure=yes",
                "-oStreamLocalBindMask=0177", "-oStreamLocalBindUnlink=yes", *forwards]  # fmt: skip
        with self._log.open("ab") as log:
            self._child: process.Child | None = process.Child(argv, env=environ, log=log)
        try:
            self._await_listening(self._child)
        except BaseException:
            self.close()
            raise

    @classmethod
    def standing(cls, folder: Path, sockets: Mapping[str, str]) -> Self:
        """The forward that another process has started; whether it answers is to be asked."""
        self = cls.__new__(cls)
        self._place(folder, sockets)
        self._child = None
        return self

    def close(self) -> None:
        """End the forward and remove its sockets."""
        if self._child is not None:
            self._child.stop()
        identity.kill(list(identity.find(self._is_ours)))
        for path in self.sockets.values():
            path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Let it run on after us."""
        if self._child is not None:
            self._child.leave()

    def _place(self, folder: Path, sockets: Mapping[str, str]) -> None:
        self._folder = folder
        self.targets = dict(sockets)
        self.sockets = {name: folder / f"{name}.sock" for name in sockets}

    def _is_ours(self, argv: Sequence[str]) -> bool:
        return is_forward(argv, self._folder)

    def _await_listening(self, child: process.Child) -> None:
        deadline = time.monotonic() + _LISTEN_TIMEOUT
        while not all(map(_is_private_socket, self.sockets.values())):
            # Waiting for the process is the pause: its end is what would make it pointless.
            ended = child.wait(0.02) is not None
            if ended or time.monotonic() > deadline:
                raise ConnectionLostError(
                    "the guest's sockets can't be forwarded",
                    ran=" ".join(child.argv),
                    seen=logs.tail(self._log, 3) or "no answer from ssh",
                    log=self._log,
                )


def is_forward(argv: Sequence[str], folder: Path) -> bool:
    """Whether a command line is that of a forward; ``folder`` is ours of the instance."""
    return "-N" in argv and f"-o{_known_hosts(folder)}" in argv


def _known_hosts(folder: Path) -> str:
    return f'UserKnownHostsFile="{folder / "known_hosts"}"'  # quoted, as it is a list of files


def ssh_command(address: Address, folder: Path) -> list[str]:
    """An ``ssh`` argv that is bound to the pinned host key and to nothing of the user's."""
    options = (
        "BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "ControlPath=none",
        "ForwardAgent=no", "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes",
        _known_hosts(folder),
        f"HostKeyAlias={folder.parent.name}",
        "ServerAliveInterval=15", "ConnectTimeout=20", "LogLevel=ERROR",
    )  # fmt: skip
    return [
        "ssh", "-F", "/dev/null", "-i", str(address.key), "-p", str(address.port),
        *(f"-o{option}" for option in options), f"{address.user}@127.0.0.1",
    ]  # fmt: skip


def ssh_config(address: Address, folder: Path) -> str:
    """The same as a configuration file, with ``lima-NAME`` for a host."""
    options = [item[2:].replace("=", " ", 1) for item in ssh_command(address, folder)
               if item.startswith("-o")]  # fmt: skip
    return "\n  ".join([
        f"Host lima-{folder.parent.name}", "HostName 127.0.0.1", f"Port {address.port}",
        f"User {address.user}", f'IdentityFile "{address.key}"', *options,
    ]) + "\n"  # fmt: skip


def ping(engine: str, path: Path) -> str:
    """Ask the engine behind a forwarded socket something it must answer.

    Returns:
        What it said: ``OK`` for docker, its version for containerd.

    Raises:
        NotAnsweringError: It doesn't answer (yet).
    """
    try:
        with _CallSocket() as sock:
            sock.connect(str(path))
            answer = _containerd_version(sock) if engine == engines.CONTAINERD else _ping(sock)
    except (OSError, http.client.HTTPException) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if answer:
            return answer
        problem = "it closed the connection"
    raise NotAnsweringError(f"{engine} does not answer on {path}", seen=problem)


class _CallSocket(socket.socket):
    """Its timeout is for a whole call; Python's is from byte to byte."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX)
        self.settimeout(_CALL_TIMEOUT)
        self._deadline = time.monotonic() + _CALL_TIMEOUT

    def recv(self, *args: Any) -> bytes:
        self._shorten()
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        self._shorten()
        return super().recv_into(*args)

    def _shorten(self) -> None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("it goes on for too long")
        self.settimeout(remaining)


def _ping(sock: socket.socket) -> str:
    """Docker's ``GET /_ping``; podman answers it too."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = sock
    connection.request("GET", "/_ping")
    answer = connection.getresponse()
    return answer.read(64).decode(errors="replace") if answer.status == 200 else ""


def _containerd_version(sock: socket.socket) -> str:
    """A gRPC call over HTTP/2; the answer's first field is the version."""
    import h2.config
    import h2.connection
    import h2.exceptions

    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    try:
        connection.initiate_connection()
        connection.send_headers(
            1,
            [(":method", "POST"), (":scheme", "http"), (":path", _CONTAINERD_VERSION),
             (":authority", "localhost"), ("content-type", "application/grpc"),
             ("te", "trailers")],
        )  # fmt: skip
        connection.send_data(1, _GRPC_EMPTY, end_stream=True)
        body = _grpc_body(connection, sock)
    except h2.exceptions.H2Error:
        return ""
    return _first_field(body[len(_GRPC_EMPTY) :])


def _grpc_body(connection: h2.connection.H2Connection, sock: socket.socket) -> bytes:
    """What the server sends on the one stream, until it ends it."""
    import h2.events

    body = bytearray()
    sock.sendall(connection.data_to_send())
    while data := sock.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data or b""
            elif isinstance(
                event,
                h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated,
            ):
                return bytes(body)
        sock.sendall(connection.data_to_send())
    return bytes(body)


def _first_field(message: bytes) -> str:
    """Field 1 of a protobuf message as text: tag 0x0a, a length below 128, the bytes."""
    if len(message) < 2 or message[0] != 0x0A:
        return ""
    return message[2 : 2 + message[1]].decode(errors="replace")


def _is_private_socket(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISSOCK(mode) and not stat.S_IMODE(mode) & 0o077
