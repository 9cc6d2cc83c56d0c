"""SSH to the guest over one connection; the one owner of paramiko."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_lima.errors import ConnectionLostError, HostKeyError, LimaError
from pytest_lima.guest.hostkeys import HostKeys

if TYPE_CHECKING:
    import paramiko

_CONNECT_TIMEOUT = 20.0
_KEEPALIVE = 15
# sshd allows ten sessions a connection (MaxSessions); two stay free for files and for killing.
_COMMAND_SESSIONS = 8
# How soon a session that sshd refused is asked for again.
_REFUSED_PAUSE = 0.05
# paramiko logs a traceback for each handshake that fails while the guest boots; what matters
# of them is raised.
_PARAMIKO_LOG = "pytest_lima.paramiko"


@dataclass(frozen=True)
class Address:
    """Where and as whom to log in.

    Attributes:
        port: On 127.0.0.1.
        user: In the guest.
        key: File of the private key, Lima's ``$LIMA_HOME/_config/user``.
    """

    port: int
    user: str
    key: Path


class NotYetError(ConnectionLostError):
    """The guest doesn't answer SSH; while it boots, that is no failure."""


class Connection:
    """An authenticated SSH connection to a guest whose host key was checked.

    Several threads may use it at once; more than eight commands queue.
    """

    def __init__(self, transport: paramiko.Transport, host_key: str) -> None:
        self._transport = transport
        self._sessions = threading.BoundedSemaphore(_COMMAND_SESSIONS)
        self._sftp: paramiko.SFTPClient | None = None
        self._sftp_lock = threading.Lock()
        self._ended = threading.Condition()
        self.host_key = host_key

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return self._transport.is_active()

    @contextmanager
    def session(self, command: str, deadline: float) -> Iterator[paramiko.Channel]:
        """Run ``command`` by the login user's shell, as ``ssh HOST COMMAND`` does.

        Args:
            command: The command line.
            deadline: On ``time.monotonic``'s clock; waiting for a free session counts.

        Raises:
            ConnectionLostError: The connection is gone; the command was not started.
            TimeoutError: No session came free in time.
        """
        if not self._sessions.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        try:
            with self.side_session(command, deadline) as channel:
                yield channel
        finally:
            self._sessions.release()

    @contextmanager
    def side_session(self, command: str, deadline: float) -> Iterator[paramiko.Channel]:
        """A session beside the eight, for what must not queue behind them."""
        with _lost():
            channel = self._open(deadline)
        try:
            with _lost():
                channel.exec_command(command)
                yield channel
        finally:
            channel.close()
            with self._ended:
                self._ended.notify_all()

    @contextmanager
    def sftp(self) -> Iterator[paramiko.SFTPClient]:
        """The connection's one SFTP client, for this thread alone while it is used.

        Raises:
            ConnectionLostError: The connection is gone.
            TimeoutError: sshd allowed no session for it in time.
        """
        import paramiko

        with self._sftp_lock, _lost():
            if self._sftp is None:
                channel = self._open(time.monotonic() + _CONNECT_TIMEOUT)
                channel.settimeout(_CONNECT_TIMEOUT)  # for each answer
                channel.invoke_subsystem("sftp")
                self._sftp = paramiko.SFTPClient(channel)
            try:
                yield self._sftp
            except TimeoutError:
                self._sftp.close()  # late answers are nobody's
                raise
            finally:
                used = self._sftp.get_channel()
                if used is None or used.closed:
                    self._sftp = None  # its server may die alone; the next use starts another

    def close(self) -> None:
        """End it, and with it every command that still runs over it."""
        self._transport.close()

    def _open(self, deadline: float) -> paramiko.Channel:
        """Open a session, as soon as sshd allows one more.

        It refuses those beyond its MaxSessions, and counts one until it has collected the
        process, a moment after we have closed it.
        """
        import paramiko

        while True:
            try:
                return self._transport.open_session(timeout=_CONNECT_TIMEOUT)
            except paramiko.SSHException:
                # A refusal is a ChannelException, which paramiko keeps in one place for all
                # threads: of two that are refused at once, one gets a plain SSHException.
                if not self._transport.is_active():
                    raise
                if time.monotonic() > deadline:
                    raise TimeoutError from None
            self._drop_idle_sftp()
            with self._ended:
                self._ended.wait(_REFUSED_PAUSE)

    def _drop_idle_sftp(self) -> None:
        """Its session is one of the few; the next use starts another."""
        if self._sftp_lock.acquire(blocking=False):
            try:
                if self._sftp is not None:
                    self._sftp.close()
                    self._sftp = None
            finally:
                self._sftp_lock.release()


def connect(address: Address, keys: HostKeys | None) -> Connection:
    """Log in, after checking that the guest's host key is one of ``keys``.

    Args:
        address: Where.
        keys: The pinned keys; None accepts any, for the caller to pin what was seen.

    Raises:
        HostKeyError: Another host key; nothing but the handshake was sent.
        NotYetError: No connection, or no login (cloud-init places the key late).
    """
    import paramiko

    logging.getLogger(_PARAMIKO_LOG).setLevel(logging.CRITICAL)
    with _not_yet(address):
        sock = socket.create_connection(("127.0.0.1", address.port), timeout=_CONNECT_TIMEOUT)
        # Without it each command waits 40 ms for a delayed acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock)
    try:
        with _not_yet(address):
            transport.set_log_channel(_PARAMIKO_LOG)
            transport.banner_timeout = _CONNECT_TIMEOUT
            transport.auth_timeout = _CONNECT_TIMEOUT
            if keys is not None:
                _ask_for_pinned(transport, keys)
            transport.start_client(timeout=_CONNECT_TIMEOUT)
            seen = transport.get_remote_server_key()
            _check(seen.get_name(), seen.get_base64(), address, keys)
            private = paramiko.Ed25519Key.from_private_key_file(str(address.key))
            transport.auth_publickey(address.user, private)
            transport.set_keepalive(_KEEPALIVE)
        return Connection(transport, f"{seen.get_name()} {seen.get_base64()}")
    except BaseException:
        transport.close()
        raise


def _ask_for_pinned(transport: paramiko.Transport, keys: HostKeys) -> None:
    """Have the server show a key of a type we have pinned."""
    options = transport.get_security_options()
    wanted = set(keys.keys) | (
        {"rsa-sha2-256", "rsa-sha2-512"} if "ssh-rsa" in keys.keys else set()
    )
    kept: Sequence[str] = [kind for kind in options.key_types if kind in wanted]
    if kept:
        options.key_types = kept


def _check(kind: str, key: str, address: Address, keys: HostKeys | None) -> None:
    if keys is None or keys.keys.get(kind) == key:
        return
    raise HostKeyError(
        "another machine answers in place of the guest",
        ran=f"ssh {address.user}@127.0.0.1 -p {address.port}",
        seen=f"{kind} …{key[-16:]}, which is not in {keys.source}",
        remedy="see what else listens on that port; nothing was sent to it",
    )


@contextmanager
def _not_yet(address: Address) -> Iterator[None]:
    """Turn what a booting guest's port does to a client into NotYetError."""
    import paramiko

    try:
        yield
    # Order matters nowhere here: all of these mean "not yet" until the caller's deadline.
    except (paramiko.SSHException, OSError, EOFError) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        return
    raise NotYetError(f"no SSH on 127.0.0.1:{address.port} as {address.user}", seen=problem)


@contextmanager
def _lost() -> Iterator[None]:
    """Turn a connection's end into ConnectionLostError."""
    import paramiko

    try:
        yield
    except (paramiko.SSHException, EOFError, ConnectionError) as error:
        problem = f"{type(error).__name__}: {error}"
    except OSError as error:
        # Others are a file's; SFTP's "Failure", such as for a full disk, has no number either.
        if str(error) != "Socket is closed":
            raise
        problem = str(error)
    else:
        return
    raise ConnectionLostError("the SSH connection to the guest is gone", seen=problem)


class Link:
    """A connection that is made when it is needed and made again when it was lost."""

    def __init__(self, open_: Callable[[], Connection]) -> None:
        self._open = open_
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def get(self) -> Connection:
        """The standing connection, or a new one; before a command, never in the middle."""
        with self._lock:
            if self._connection is None or not self._connection.alive:
                self._connection = self._open()
            return self._connection

    def put(self, connection: Connection) -> None:
        """Use a connection that was made elsewhere."""
        self.close()
        self._connection = connection

    def close(self) -> None:
        """Drop the connection."""
        with self._lock, contextlib.suppress(LimaError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
