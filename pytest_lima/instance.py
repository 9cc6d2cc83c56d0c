"""``Instance``: the VM that a test author uses. Other modules decide when it starts and ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pytest_lima import realfiles, realtime
from pytest_lima.errors import LimaError
from pytest_lima.guest import arguments, commands, files, readiness, sockets
from pytest_lima.guest.arguments import GuestPath
from pytest_lima.guest.commands import Command
from pytest_lima.guest.login import LoginTimeoutError
from pytest_lima.guest.output import OnOutput
from pytest_lima.lima import engines, logs, paths, process
from pytest_lima.machine import Machine
from pytest_lima.results import CommandResult


class Instance(Machine):
    """A running Linux VM that is ready: provisioned, reachable, its engines answering.

    Any number of threads may use it: commands and files run in parallel, changes of the VM one
    after another. Forked children may use it too, but can't reboot, reset, snapshot, restore or
    clone it. Paths in the guest and on the host are strings or path objects. A bad argument raises
    a TypeError or a ValueError before anything is sent.

    Attributes:
        name: Lima's name of the instance.
        vmtype: ``qemu`` or ``vz``.
        arch: ``x86_64``, ``aarch64``, …
        cpus: Number of virtual CPUs.
        memory: MiB; a request for 2 or ``"2GiB"`` is 2048.
        dir: The instance's directory on the host.
        user: The guest's login user, who may use ``sudo`` without a password.
        ssh_port: Port on 127.0.0.1 of the guest's sshd.
        boot_seconds: How long the VM took to become ready at its last boot.
    """

    def __repr__(self) -> str:
        return f"<Instance {self.name} {self.vmtype} {self.arch}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be pickled or copied, as it holds a connection. Fork the process that "
            "needs it, or pass its ssh_config, docker_host or name"
        )

    @realfiles.aside()
    def status(self) -> str:
        """Lima's status of it: ``Running``, ``Stopped``, ``Broken``; ``Gone`` if deleted.

        Each call runs limactl.
        """
        info = self._ready.request.host.limactl.inspect(self.name)
        return info.status if info else "Gone"

    @property
    @realfiles.aside()
    def ssh_config(self) -> Path:
        """Path of a config file for ``ssh -F FILE lima-NAME``, with the pinned host key."""
        path = self.dir / "pl" / "ssh_config"
        text = sockets.ssh_config(self._ready.address, path.parent)
        if not path.exists() or path.read_text() != text:
            paths.write_whole(path, text)
        return path

    @property
    def docker_host(self) -> str:
        """Address of the guest's Docker on this host, ``unix://…``, for ``DOCKER_HOST``.

        Raises:
            LimaError: The instance was started without docker.
        """
        return f"unix://{self._socket(engines.DOCKER)}"

    @property
    def containerd_address(self) -> str:
        """Path on this host of the guest's containerd socket, for ``CONTAINERD_ADDRESS``.

        Raises:
            LimaError: The instance was started without containerd.
        """
        return str(self._socket(engines.CONTAINERD))

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float = commands.TIMEOUT,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
        env: Mapping[str, str] | None = None,
        cwd: GuestPath | None = None,
        user: str | None = None,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        """Run a command in the guest and wait for its end.

        Args:
            command: A string is run by the login shell; a list of strings and paths is quoted
                item by item.
            check: Raise an error if the command doesn't return 0.
            timeout: Seconds, more than 0, including a login that is needed first. Then the
                command's whole session is killed in the guest, as when anything else ends the
                call, such as Ctrl-C or an error in ``on_output``.
            input: Standard input, empty by default.
            env: Environment variables to set: strings, paths or numbers.
            cwd: Directory to run in, by default the user's home.
            user: Run as this user with sudo, such as ``"root"``.
            on_output: Called with ``"stdout"`` or ``"stderr"`` and each chunk of bytes.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument can't be passed to a command, such as an empty string or a NUL.
            CommandError: With ``check``, the command didn't return 0.
            CommandTimeoutError: The command took longer than ``timeout``; has its output.
            ConnectionLostError: The connection broke; whether the command ran is unknown.
            InstanceDiedError: The VM died.
            LimaError: Startup files in the guest kept the command from running.
        """
        order = commands.order(command, timeout=timeout, input=input, env=env, cwd=cwd,
                               user=user, on_output=on_output)  # fmt: skip
        self._await_steady()
        deadline = realtime.monotonic() + order.timeout
        try:
            with self._connection(deadline) as connection:
                return commands.run_order(connection, order, deadline, check=check)
        except LoginTimeoutError:
            raise commands.not_sent(order) from None

    def put(
        self,
        local: os.PathLike[str] | str,
        remote: GuestPath,
        *,
        user: str | None = None,
        mode: int | None = None,
    ) -> None:
        """Copy a file, or the contents of a directory, to the guest.

        Args:
            local: The file or the directory.
            remote: The path in the guest. For a directory, it is created if it doesn't exist.
            user: Owner of the file, or of all contents of the directory. It is written as this
                user with sudo. The default is the login user.
            mode: Permissions of the file, such as ``0o600``. The default is those of ``local``.
                Not for a directory, whose files and directories keep theirs.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument is not valid, such as a mode for a directory.
            LimaError: ``local`` doesn't exist, the guest refused it, or a directory took 600 s.
            OSError: ``local`` can't be read.
        """
        source, target = arguments.local(local), arguments.path(remote)
        owner, permissions = arguments.user(user), arguments.mode(mode)
        files.require(source, permissions)
        with self._connection() as connection:
            files.put(connection, source, target, user=owner, mode=permissions)

    def get(self, remote: GuestPath, local: os.PathLike[str] | str) -> None:
        """Copy a file, or the contents of a directory, from the guest.

        Only regular files and directories are copied, at most 4 GiB and 100,000 files.

        Raises:
            LimaError: ``remote`` can't be read, exceeds these limits, or takes over 600 s.
            OSError: ``local`` can't be written.
        """
        source, target = arguments.path(remote), arguments.local(local)
        with self._connection() as connection:
            files.get(connection, source, target)

    def read_bytes(self, remote: GuestPath) -> bytes:
        """The contents of a file in the guest.

        Raises:
            LimaError: The file can't be read.
        """
        source = arguments.path(remote)
        with self._connection() as connection:
            return files.read_bytes(connection, source)

    def read_text(self, remote: GuestPath) -> str:
        """The contents of a UTF-8 file in the guest.

        Raises:
            LimaError: The file can't be read.
            UnicodeDecodeError: The file isn't UTF-8.
        """
        return self.read_bytes(remote).decode()

    def write_bytes(
        self,
        remote: GuestPath,
        data: bytes,
        *,
        user: str | None = None,
        mode: int | None = None,
    ) -> None:
        """Write a file in the guest.

        Args:
            remote: Path of the file. A symlink is followed.
            data: The contents.
            user: Owner of the file. It is written as this user with sudo; ``"root"`` may write
                anywhere. The default is the login user.
            mode: Permissions of the file, such as ``0o600``. It never has other ones: a new file
                replaces the old one. By default, an existing file keeps its own.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument is not valid.
            LimaError: The guest refused it.
        """
        target, checked = arguments.path(remote), bytes(arguments.data(data, "data"))
        owner, permissions = arguments.user(user), arguments.mode(mode)
        with self._connection() as connection:
            files.write_bytes(connection, target, checked, user=owner, mode=permissions)

    def write_text(
        self, remote: GuestPath, text: str, *, user: str | None = None, mode: int | None = None
    ) -> None:
        """Write a file in the guest as UTF-8. Otherwise like `write_bytes`.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument is not valid.
            LimaError: The guest refused it.
        """
        self.write_bytes(remote, arguments.text(text, "text"), user=user, mode=mode)

    def console_log(self) -> str:
        """The last 256 KiB of what the guest has printed on its console since its boot."""
        return logs.console_text(self.dir)

    def cloud_init_status(self) -> dict[str, Any]:
        """The output of ``cloud-init status --format=json`` in the guest.

        Raises:
            LimaError: The guest has no cloud-init, or its output can't be read.
        """
        with self._connection() as connection:
            return readiness.cloud_init_status(connection)

    @realfiles.aside()
    def limactl(self, *args: str | os.PathLike[str], timeout: float = 60.0) -> process.Completed:
        """Run limactl with the plugin's LIMA_HOME: ``vm.limactl("list")``.

        Returns:
            argv, returncode (None after a timeout), ok, and the last 4 MiB of stdout and stderr.
            A failure raises no error.
        """
        words, seconds = arguments.words(args, "args"), arguments.timeout(timeout)
        return self._ready.request.host.limactl.run(*words, timeout=seconds)

    def _socket(self, engine: str) -> Path:
        found = self._ready.forward.sockets if self._ready.forward else {}
        if engine in found:
            return found[engine]
        raise LimaError(
            f"{self.name} was started without {engine}",
            remedy=f"use the fixture for it, engine={engine!r} in the test's marker, or "
            f"--lima-engine={engine}",
        )
