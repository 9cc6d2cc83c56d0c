"""``Instance``: what a test author holds. No policy: others decide when it is made and ends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pytest_lima import realfiles
from pytest_lima.errors import LimaError
from pytest_lima.guest import arguments, commands, files, readiness, sockets
from pytest_lima.guest.arguments import GuestPath
from pytest_lima.guest.commands import CommandResult
from pytest_lima.guest.output import OnOutput
from pytest_lima.lima import engines, logs, paths, process
from pytest_lima.machine import Machine


class Instance(Machine):
    """A running Linux VM that is ready: provisioned, reachable, its engines answering.

    Use it from as many threads as you like: commands and files go side by side, what changes the
    VM goes one after another. And in forked children, where it can't be rebooted, reset, kept,
    restored or cloned. Paths in the guest and on the host are texts or path objects. An argument
    that can't be meant is a TypeError or a ValueError before anything is sent.

    Attributes:
        name: Lima's name of the instance.
        vmtype: ``qemu`` or ``vz``.
        arch: ``x86_64``, ``aarch64``, …
        cpus: Number of virtual CPUs.
        memory: MiB.
        dir: The instance's folder on the host.
        user: The guest's login user; may use ``sudo`` without a password.
        ssh_port: Port on 127.0.0.1 of the guest's sshd.
        boot_seconds: How long the last boot took until ready.
    """

    def __repr__(self) -> str:
        return f"<Instance {self.name} {self.vmtype} {self.arch}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be pickled or copied: it holds a connection. Fork the process that is "
            "to use it, or pass on its ssh_config, docker_host or name"
        )

    @property
    @realfiles.aside()
    def status(self) -> str:
        """Lima's word for its state: ``Running``, ``Stopped``, ``Broken``; ``Gone`` if deleted."""
        info = self._host.limactl.inspect(self.name)
        return info.status if info else "Gone"

    @property
    @realfiles.aside()
    def ssh_config(self) -> Path:
        """A file for ``ssh -F FILE lima-NAME``, with the pinned host key."""
        path = self.dir / "pl" / "ssh_config"
        text = sockets.ssh_config(self._booted.address, path.parent)
        if not path.exists() or path.read_text() != text:
            paths.write_whole(path, text)
        return path

    @property
    def docker_host(self) -> str:
        """``unix://`` address of the guest's Docker on this host, for ``DOCKER_HOST``.

        Raises:
            LimaError: The instance was started without docker.
        """
        return f"unix://{self._socket(engines.DOCKER)}"

    @property
    def containerd_address(self) -> str:
        """Path of containerd's socket on this host, for ``CONTAINERD_ADDRESS``.

        Raises:
            LimaError: The instance was started without containerd.
        """
        return str(self._socket(engines.CONTAINERD))

    def run(
        self,
        command: str | Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
        env: Mapping[str, str] | None = None,
        cwd: GuestPath | None = None,
        user: str | None = None,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        """Run a command in the guest and wait for its end.

        Args:
            command: A text is a line for the login user's shell; a list is an argv of texts and
                paths, quoted.
            check: Raise when it returns other than 0.
            timeout: Seconds above 0; then its whole session is killed in the guest. So it is when
                anything else ends the call: Ctrl-C, for one, or what ``on_output`` raises.
            input: Standard input; none is an empty one.
            env: Environment variables to set; texts, paths or numbers.
            cwd: Directory to run in; the user's home by default.
            user: Run as this user, by way of sudo; ``"root"``, for one.
            on_output: Called with ``"stdout"`` or ``"stderr"`` and the bytes as they come.

        Raises:
            TypeError: An argument of another type.
            ValueError: One that can't be passed to a command: empty, or with a NUL, for two.
            CommandError: ``check``, and it returned other than 0.
            CommandTimeoutError: It took longer than ``timeout``; holds the output until then.
            ConnectionLostError: The connection broke; whether the command ran is unknown.
            InstanceDiedError: The VM is gone.
            LimaError: It didn't run, as startup files in the guest kept it from that.
        """
        order = commands.order(command, timeout=timeout, input=input, env=env, cwd=cwd,
                               user=user, on_output=on_output)  # fmt: skip
        with self._connection() as connection:
            return commands.run_order(connection, order, check=check)

    def put(self, local: os.PathLike[str] | str, remote: GuestPath) -> None:
        """Copy a file, or a directory's contents as one stream, to the guest.

        Raises:
            LimaError: There is no such file, or the guest refused, or took 600 s for a directory.
            OSError: ``local`` can't be read.
        """
        source, target = arguments.local(local), arguments.path(remote)
        files.require(source)
        with self._connection() as connection:
            files.put(connection, source, target)

    def get(self, remote: GuestPath, local: os.PathLike[str] | str) -> None:
        """Copy a file, or a directory's contents as one stream, from the guest.

        Only regular files and directories, at most 4 GiB and 100,000 files.

        Raises:
            LimaError: It can't be read, is more than that, or takes more than 600 s.
            OSError: ``local`` can't be written.
        """
        source, target = arguments.path(remote), arguments.local(local)
        with self._connection() as connection:
            files.get(connection, source, target)

    def read_bytes(self, remote: GuestPath) -> bytes:
        """The contents of a file in the guest.

        Raises:
            LimaError: It can't be read.
        """
        source = arguments.path(remote)
        with self._connection() as connection:
            return files.read_bytes(connection, source)

    def read_text(self, remote: GuestPath) -> str:
        """The contents of a UTF-8 file in the guest.

        Raises:
            LimaError: It can't be read.
            UnicodeDecodeError: It isn't UTF-8.
        """
        return self.read_bytes(remote).decode()

    def write_bytes(self, remote: GuestPath, data: bytes) -> None:
        """Write a file in the guest.

        Raises:
            LimaError: The guest refused.
        """
        target, checked = arguments.path(remote), bytes(arguments.data(data, "data"))
        with self._connection() as connection:
            files.write_bytes(connection, target, checked)

    def write_text(self, remote: GuestPath, text: str) -> None:
        """Write a file in the guest as UTF-8.

        Raises:
            LimaError: The guest refused.
        """
        self.write_bytes(remote, arguments.text(text, "text"))

    def console_log(self) -> str:
        """What the guest has printed on its console since its boot, the last 256 KiB."""
        return logs.console_text(self.dir)

    def cloud_init_status(self) -> dict[str, Any]:
        """What ``cloud-init status --format=json`` says in the guest now.

        Raises:
            LimaError: The guest has no cloud-init, or it can't be read.
        """
        with self._connection() as connection:
            return readiness.cloud_init_status(connection)

    @realfiles.aside()
    def limactl(self, *args: str | os.PathLike[str], timeout: float = 60.0) -> process.Completed:
        """Run limactl with our LIMA_HOME, for what has no method: ``vm.limactl("list")``.

        Returns:
            argv, returncode (None where ``timeout`` seconds were too few), ok, and the last 4 MiB
            of stdout and stderr; a failure isn't raised.
        """
        words, seconds = arguments.words(args, "args"), arguments.timeout(timeout)
        return self._host.limactl.run(*words, timeout=seconds)

    def _socket(self, engine: str) -> Path:
        found = self._booted.forward.sockets if self._booted.forward else {}
        if engine in found:
            return found[engine]
        raise LimaError(
            f"{self.name} was started without {engine}",
            remedy=f"ask for it with --lima-engine={engine}, or use the fixture that does",
        )
