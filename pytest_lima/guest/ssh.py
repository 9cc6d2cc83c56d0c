"""SSH to the guest over one connection; the one owner of paramiko."""

from __future__ import annotations

import functools
import io
import logging
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pytest_lima import realfiles, realsockets, realtime
from pytest_lima.errors import ConnectionLostError, HostKeyError
from pytest_lima.guest import channels, inherited
from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.sftp import Sftp, no_server, not_begun
from pytest_lima.lima import forks, libraries

if TYPE_CHECKING:
    import paramiko

    from pytest_lima.guest.shell import Shell

_CONNECT_TIMEOUT = 20.0
_KEEPALIVE = 15
# sshd allows ten sessions a connection (MaxSessions); two stay free for files and for killing.
_COMMAND_SESSIONS = 8
# How soon a session that sshd refused is asked for again.
_REFUSED_PAUSE = 0.05
# paramiko logs a traceback for each handshake that fails; what matters of them is raised.
_PARAMIKO_LOG = "pytest_lima.paramiko"

# Gets what ends an attempt to log in, for another thread to call.
Hold = Callable[[Callable[[], None]], None]


class NotYetError(ConnectionLostError):
    """The guest doesn't answer SSH; while it boots, that is no failure."""


class Connection:
    """An authenticated SSH connection to a guest whose host key was checked.

    Several threads may use it at once; more than eight commands queue.

    Attributes:
        host_key: Type and key that the guest has shown.
        has_shells: Whether shells can stay in this guest, as far as is known.
        idle: Shells that may be used again; closed when sshd has no more sessions.
        again: Makes another connection to the same guest.
    """

    def __init__(
        self, transport: paramiko.Transport, host_key: str, again: Callable[[], Connection]
    ) -> None:
        self._transport = transport
        self._sessions = threading.BoundedSemaphore(_COMMAND_SESSIONS)
        self._sftp = Sftp(self._open_sftp)
        self._ended = threading.Condition()
        self._channels: weakref.WeakSet[paramiko.Channel] = weakref.WeakSet()
        self.idle: list[Shell] = []
        self.host_key = host_key
        self.has_shells = True
        self.again = again
        forks.let_go_in_children(self)

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return self._transport.is_active()

    @contextmanager
    def slot(self, deadline: float) -> Iterator[None]:
        """One of the eight places for a command.

        Args:
            deadline: On ``realtime.monotonic``'s clock.

        Raises:
            ConnectionLostError: The connection ended inside.
            TimeoutError: No place came free in time.
        """
        if not self._sessions.acquire(timeout=max(0.0, deadline - realtime.monotonic())):
            raise TimeoutError
        try:
            with _lost():
                yield
        finally:
            self._sessions.release()

    @contextmanager
    def channel(self, deadline: float) -> Iterator[paramiko.Channel]:
        """A session beside the eight, in which nothing runs yet; see ``sessions.begun``.

        Args:
            deadline: On ``realtime.monotonic``'s clock.

        Raises:
            ConnectionLostError: The connection is gone.
            TimeoutError: sshd allowed no session in time.
        """
        channel = self.open(deadline)
        try:
            with _lost():
                yield channel
        finally:
            channel.close()
            with self._ended:
                self._ended.notify_all()

    def open(self, deadline: float) -> paramiko.Channel:
        """Like ``channel``, for the caller to close."""
        with _lost():
            return self._open(deadline)

    @contextmanager
    def sftp(self) -> Iterator[paramiko.SFTPClient]:
        """The connection's one SFTP client, for this thread alone while it is used.

        Raises:
            ConnectionLostError: The connection is gone.
            TimeoutError: sshd allowed no session for it in time.
        """
        with _lost(), self._sftp.use() as client:
            yield client

    def close(self) -> None:
        """End it, and with it every command that still runs over it."""
        self._transport.close()

    def let_go(self) -> None:
        """In a forked child: the connection is the parent's, and nothing may be sent over it.

        What is left of a use in here, up to a channel that is collected, finds it lost.
        """
        inherited.let_go(self._transport, self._channels)

    def _open(self, deadline: float) -> paramiko.Channel:
        """Open a session, as soon as sshd allows one more.

        It refuses those beyond its MaxSessions, and counts one until it has collected the
        process, a moment after we have closed it.
        """
        import paramiko

        while True:
            try:
                left = min(_CONNECT_TIMEOUT, max(0.1, deadline - realtime.monotonic()))
                ask = functools.partial(self._transport.open_session, timeout=left)
                channel = channels.within(left, ask, lambda late: late.close())
                self._channels.add(channel)
                return channel
            except (paramiko.SSHException, TimeoutError):
                # A refusal is a ChannelException, which paramiko keeps in one place for all
                # threads: of two that are refused at once, one gets a plain SSHException.
                if not self._transport.is_active():
                    raise
                if realtime.monotonic() > deadline:
                    raise TimeoutError from None
            self._drop_idle()
            with self._ended:
                self._ended.wait(_REFUSED_PAUSE)

    def _drop_idle(self) -> None:
        """Give back one session that isn't in use; its next use starts another."""
        with suppress(IndexError):
            self.idle.pop().close()
            return
        self._sftp.drop()

    def _open_sftp(self) -> paramiko.SFTPClient:
        import paramiko

        deadline = realtime.monotonic() + _CONNECT_TIMEOUT
        channel = self._open(deadline)
        accepted, client = False, None
        try:
            channels.asked(channel, lambda: channel.invoke_subsystem("sftp"), deadline)
            accepted = True
            client = paramiko.SFTPClient(channels.timed(channel, _CONNECT_TIMEOUT))
            client.logger = logging.getLogger(f"{_PARAMIKO_LOG}.sftp")
            return client
        except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError) as error:
            if not self.alive:
                raise
            spoken = accepted or channel.recv_ready()
            raise (not_begun(channel, error) if spoken else no_server(error)) from error
        finally:
            if client is None:
                channel.close()


def prepare() -> None:
    """Have a thread load paramiko, which takes a third of a second that is often free."""
    if "paramiko" not in sys.modules:
        load = functools.partial(libraries.load, ["paramiko"])
        threading.Thread(target=load, name="pytest-lima-import", daemon=True).start()


def connect(address: Address, keys: HostKeys | None, hold: Hold = lambda _: None) -> Connection:
    """Log in, after checking that the guest's host key is one of ``keys``.

    Args:
        address: Where.
        keys: The pinned keys; None accepts any, for the caller to pin what was seen.
        hold: Gets what ends the attempt; where it raises, that is the end of it.

    Raises:
        HostKeyError: Another host key; nothing but the handshake was sent.
        NotYetError: No connection, or no login (cloud-init places the key late).
    """
    import paramiko

    logging.getLogger(_PARAMIKO_LOG).setLevel(logging.CRITICAL)
    with _not_yet(address):
        sock = realsockets.connect(address.port, _CONNECT_TIMEOUT)
        # Without it each command waits 40 ms for a delayed acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock)

    def end() -> None:
        transport.close()
        sock.close()  # left open by a transport that hasn't begun

    try:
        hold(end)
        with _not_yet(address):
            transport.set_log_channel(_PARAMIKO_LOG)
            transport.banner_timeout = _CONNECT_TIMEOUT
            _ask_for(transport, keys)
            negotiated = threading.Event()
            transport.start_client(event=negotiated)
            channels.await_step(transport, negotiated, _CONNECT_TIMEOUT)
            seen = transport.get_remote_server_key()
            if keys is not None and keys.keys.get(seen.get_name()) != seen.get_base64():
                raise HostKeyError(
                    "another machine answers in place of the guest",
                    ran=f"ssh {address.user}@127.0.0.1 -p {address.port}",
                    seen=f"{seen.get_name()} …{seen.get_base64()[-16:]}, not in {keys.source}",
                    remedy="see what else listens on that port; nothing was sent to it",
                )
            decided = threading.Event()
            # Not read by paramiko, which might look into a test's own file system.
            key = io.StringIO(realfiles.read_text(address.key))
            private = paramiko.Ed25519Key.from_private_key(key)
            transport.auth_publickey(address.user, private, decided)
            channels.await_step(transport, decided, _CONNECT_TIMEOUT)
            if not transport.is_authenticated():
                raise paramiko.AuthenticationException("Authentication failed.")
            transport.set_keepalive(_KEEPALIVE)
        pinned = keys or HostKeys({seen.get_name(): seen.get_base64()}, "the first connection")
        shown = f"{seen.get_name()} {seen.get_base64()}"
        return Connection(transport, shown, lambda: connect(address, pinned))
    except BaseException:
        end()
        raise


def _ask_for(transport: paramiko.Transport, keys: HostKeys | None) -> None:
    """Ask for AES-GCM, as Lima does, and for a key of a type that is pinned."""
    options = transport.get_security_options()
    # It takes the guest half the time of a cipher and a MAC.
    options.ciphers = sorted(options.ciphers, key=lambda cipher: "gcm" not in cipher)
    if keys is None:
        return
    wanted = set(keys.keys) | (
        {"rsa-sha2-256", "rsa-sha2-512"} if "ssh-rsa" in keys.keys else set()
    )
    kept: Sequence[str] = [kind for kind in options.key_types if kind in wanted]
    if kept:
        options.key_types = kept


@contextmanager
def _not_yet(address: Address) -> Iterator[None]:
    """Turn what a booting guest's port does to a client into NotYetError."""
    import paramiko

    try:
        yield
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise NotYetError(
            f"no SSH on 127.0.0.1:{address.port} as {address.user}",
            seen=f"{type(error).__name__}: {error}",
        ) from None


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
