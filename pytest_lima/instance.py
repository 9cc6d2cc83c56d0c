"""``Instance``: what a test author holds. No policy: others decide when it is made and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_lima import realfiles
from pytest_lima.errors import LimaError
from pytest_lima.guest import commands, files, readiness, sockets
from pytest_lima.guest.commands import CommandResult
from pytest_lima.guest.output import OnOutput
from pytest_lima.lima import engines, logs, paths, process
from pytest_lima.machine import Machine


class Instance(Machine):
    """A running Linux VM that is ready: provisioned, reachable, its engines answering.

    Use it from as many threads as you like: commands and files go side by side, what changes the
    VM goes one after another. Paths in the guest are texts, paths on the host ``Path`` or text.

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
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        """Run a command in the guest and wait for its end.

        Args:
            command: A text is a line for the login user's shell; a list is an argv, quoted.
            check: Raise when it returns other than 0.
            timeout: Seconds; then its whole session is killed in the guest.
            input: Standard input; none is an empty one.
            env: Environment variables to set.
            cwd: Directory to run in; the user's home by default.
            user: Run as this user, by way of sudo; ``"root"``, for one.
            on_output: Called with ``"stdout"`` or ``"stderr"`` and the bytes as they come.

        Raises:
            CommandError: ``check``, and it returned other than 0.
            CommandTimeoutError: It took longer than ``timeout``; holds the output until then.
            ConnectionLostError: The connection broke; whether the command ran is unknown.
            InstanceDiedError: The VM is gone.
        """
        with self._connection() as connection:
            return commands.run(
                connection, command, check=check, timeout=timeout, input=input,
                env=env, cwd=cwd, user=user, on_output=on_output,
            )  # fmt: skip

    def put(self, local: Path | str, remote: str) -> None:
        """Copy a file, or a directory's contents as one stream, to the guest.

        Raises:
            LimaError: There is no such file, or the guest refused, or took 600 s for a directory.
            OSError: ``local`` can't be read.
        """
        with self._connection() as connection:
            files.put(connection, Path(local), remote)

    def get(self, remote: str, local: Path | str) -> None:
        """Copy a file, or a directory's contents as one stream, from the guest.

        Only regular files and directories, at most 4 GiB and 100,000 files.

        Raises:
            LimaError: It can't be read, is more than that, or takes more than 600 s.
            OSError: ``local`` can't be written.
        """
        with self._connection() as connection:
            files.get(connection, remote, Path(local))

    def read_bytes(self, remote: str) -> bytes:
        """The contents of a file in the guest.

        Raises:
            LimaError: It can't be read.
        """
        with self._connection() as connection:
            return files.read_bytes(connection, remote)

    def read_text(self, remote: str) -> str:
        """The contents of a UTF-8 file in the guest.

        Raises:
            LimaError: It can't be read.
            UnicodeDecodeError: It isn't UTF-8.
        """
        return self.read_bytes(remote).decode()

    def write_bytes(self, remote: str, data: bytes) -> None:
        """Write a file in the guest.

        Raises:
            LimaError: The guest refused.
        """
        with self._connection() as connection:
            files.write_bytes(connection, remote, data)

    def write_text(self, remote: str, text: str) -> None:
        """Write a file in the guest as UTF-8.

        Raises:
            LimaError: The guest refused.
        """
        self.write_bytes(remote, text.encode())

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
    def limactl(self, *args: str, timeout: float = 60.0) -> process.Completed:
        """Run limactl with our LIMA_HOME, for what has no method: ``vm.limactl("list")``.

        Returns:
            argv, returncode (None where ``timeout`` seconds were too few), ok, and the last 4 MiB
            of stdout and stderr; a failure isn't raised.
        """
        return self._host.limactl.run(*args, timeout=timeout)

    def _socket(self, engine: str) -> Path:
        found = self._booted.forward.sockets if self._booted.forward else {}
        if engine in found:
            return found[engine]
        raise LimaError(
            f"{self.name} was started without {engine}",
            remedy=f"ask for it with --lima-engine={engine}, or use the fixture that does",
        )
