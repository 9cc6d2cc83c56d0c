"""Sockets of the guest on this host, by our own ``ssh -L``.

Lima makes its forwards once and never again (they die with its ControlMaster), and in plain
mode not at all. Ours live in a 0700 folder on short paths, 0600, and are made anew after a
reboot.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from pytest_lima import realtime
from pytest_lima.errors import ConnectionLostError
from pytest_lima.guest.address import Address
from pytest_lima.lima import identity, logs, process
from pytest_lima.lima.forks import Origin

_LISTEN_TIMEOUT = 20.0


class SocketForward:
    """One ``ssh`` process that forwards sockets of the guest to paths of this host.

    It belongs to the instance: it outlives the process that started it, and others use it.

    Attributes:
        sockets: Host path of each forwarded socket, by its name.
        targets: Its path in the guest.
        once: Host path of one more, of which nobody knows but who starts this.
    """

    def __init__(
        self,
        address: Address,
        folder: Path,
        sockets: Mapping[str, str],
        environ: Mapping[str, str],
        once: str | None = None,
    ) -> None:
        """Start forwarding.

        Args:
            address: The guest's sshd.
            folder: Our folder of the instance, with ``known_hosts`` in it.
            sockets: Guest path of each socket, by name.
            environ: Environment for ssh.
            once: Guest path of a socket that is wanted only now; ``forget`` it then.

        Raises:
            ConnectionLostError: ssh ended, or didn't listen in time.
        """
        self._place(folder, sockets)
        pairs = {self.sockets[name]: sockets[name] for name in sockets}
        if once is not None:
            pairs[self.once] = once
        for path in pairs:
            path.unlink(missing_ok=True)  # one that was left would look like ours
        self._log = folder / "ssh-forward.log"
        forwards = [f"-L{path}:{target}" for path, target in pairs.items()]
        argv = [*ssh_command(address, folder), "-N", "-oExitOnForwardFailure=yes",
                "-oStreamLocalBindMask=0177", "-oStreamLocalBindUnlink=yes", *forwards]  # fmt: skip
        with self._log.open("ab") as log:
            self._child: process.Child | None = process.Child(argv, env=environ, log=log)
        try:
            self._await_listening(self._child, pairs)
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
        """End the forward and remove its sockets; in a forked child it is the parent's."""
        if not self._origin.is_here:
            return
        if self._child is not None:
            self._child.stop()
        identity.kill(list(identity.find(self._is_ours)))
        for path in self.sockets.values():
            path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Let nobody reach the socket any more that was wanted once."""
        self.once.unlink(missing_ok=True)

    def leave(self) -> None:
        """Let it run on after us."""
        if self._child is not None and self._origin.is_here:
            self._child.leave()

    def _place(self, folder: Path, sockets: Mapping[str, str]) -> None:
        self._origin = Origin()
        self._folder = folder
        self.targets = dict(sockets)
        self.sockets = {name: folder / f"{name}.sock" for name in sockets}
        self.once = folder / "once.sock"

    def _is_ours(self, argv: Sequence[str]) -> bool:
        return is_forward(argv, self._folder)

    def _await_listening(self, child: process.Child, paths: Iterable[Path]) -> None:
        deadline = realtime.monotonic() + _LISTEN_TIMEOUT
        while not all(map(_is_private_socket, paths)):
            # Waiting for the process is the pause: its end is what would make it pointless.
            ended = child.wait(0.02) is not None
            if ended or realtime.monotonic() > deadline:
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
        # A VM that is kept stands still for up to two minutes; its forwards are to outlive that.
        "ServerAliveInterval=15", "ServerAliveCountMax=12", "ConnectTimeout=20", "LogLevel=ERROR",
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


def _is_private_socket(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISSOCK(mode) and not stat.S_IMODE(mode) & 0o077
