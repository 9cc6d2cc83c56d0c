"""QEMU's machine protocol on ``INST/qmp.sock``; the one owner of qemu.qmp.

Of its client, not of its ``legacy`` module, which is GPL-2.0-only. The client is asyncio, which
paramiko has loaded by then: 10 ms more. Its loop runs in a thread of its own, as a test may run
in a loop too.

QMP tells of failures; the human monitor that ``limactl snapshot`` goes through prints them and
limactl exits 0 (Lima: pkg/driver/qemu/qemu.go, sendHmpCommand).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pytest_lima import realsockets, realtime
from pytest_lima.errors import InstanceDiedError, LimaError

if TYPE_CHECKING:
    from qemu.qmp import EventListener, QMPClient

T = TypeVar("T")

_COMMAND_TIMEOUT = 20.0
_FINAL = {"completed", "failed", "cancelled"}
_FIRST_ADDRESS = 15  # in 192.168.5.0/24 (Lima: pkg/networks/const.go)


def prepare() -> None:
    """Load the client, which takes a tenth of a second."""
    import qemu.qmp  # noqa: F401


class MigrationError(LimaError):
    """QEMU has tried to write or to load a state, and says why that failed."""


class Monitor:
    """A connection to one QEMU; a context manager. QEMU serves one at a time."""

    def __init__(self, socket: Path) -> None:
        """Connect to ``socket``.

        Raises:
            InstanceDiedError: Nobody listens there.
        """
        from qemu.qmp import EventListener, QMPClient

        # What matters of its log is raised.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        self._path = socket
        # The loop wakes itself up over a pair of sockets, and makes them itself.
        with realsockets.in_place():
            self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="pytest-lima-qmp", daemon=True
        )
        self._thread.start()
        self._client: QMPClient = QMPClient()
        self._events: EventListener = EventListener("MIGRATION")
        self._client.register_listener(self._events)
        try:
            with realsockets.in_place():
                self._call("connect", self._client.connect(str(socket)), _COMMAND_TIMEOUT)
        except BaseException:
            self._end_loop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("disconnect", self._client.disconnect(), _COMMAND_TIMEOUT)
        except LimaError:
            pass  # QEMU ended; whoever talked to it has seen that
        finally:
            self._end_loop()

    def execute(
        self,
        command: str,
        arguments: dict[str, object] | None = None,
        *,
        timeout: float = _COMMAND_TIMEOUT,
    ) -> Any:
        """Run one command and return what it returns.

        Raises:
            LimaError: QEMU refused it, or doesn't answer within ``timeout`` seconds.
            InstanceDiedError: QEMU is gone.
        """
        return self._call(command, self._client.execute(command, arguments), timeout)

    def pass_file(self, name: str, descriptor: int) -> None:
        """Give QEMU an open file, to be named ``fd:NAME`` in a migration."""

        async def send() -> None:
            self._client.send_fd_scm(descriptor)
            await self._client.execute("getfd", {"fdname": name})

        self._call("getfd", send(), _COMMAND_TIMEOUT)

    def migrate(self, command: str, arguments: dict[str, object], timeout: float) -> None:
        """Run ``migrate`` or ``migrate-incoming`` and wait for its end.

        Raises:
            MigrationError: It failed, with QEMU's reason.
            LimaError: QEMU did not begin with it, or is not done in time.
            InstanceDiedError: QEMU ended, which is how it reports a state it can't load; or a
                ``migrate`` that took too long can't be cancelled.
        """
        self.execute("migrate-set-capabilities",
                     {"capabilities": [{"capability": "events", "state": True}]})  # fmt: skip
        self.execute(command, arguments)
        try:
            info = self._migrated(command, timeout)
        except InstanceDiedError:
            raise
        except LimaError:
            if command == "migrate":
                self._cancel()
            raise
        if info["status"] != "completed":
            reason = str(info.get("error-desc") or info["status"])
            raise self._error(command, reason, MigrationError)

    def lead_ssh_to(self, port: int, guest: str) -> None:
        """Let ``port`` of this host lead to port 22 of the guest's address ``guest``.

        Connections that stand go on. QMP has no command for it; the human monitor says in its
        output how it went.

        Raises:
            LimaError: It doesn't.
        """
        rule = f"tcp:127.0.0.1:{port}"
        for line, good in ((f"hostfwd_remove net0 {rule}", f"host forwarding rule for {rule}"),
                           (f"hostfwd_add net0 {rule}-{guest}:22", "")):  # fmt: skip
            said = self.execute("human-monitor-command", {"command-line": line}).strip()
            if said.removesuffix(" removed") != good:
                raise self._error(line, said)

    def _migrated(self, command: str, timeout: float) -> dict[str, Any]:
        """How it ended."""
        deadline = realtime.monotonic() + timeout
        while (info := self.execute("query-migrate")).get("status") not in _FINAL:
            # The next change; one that came before is in the queue.
            self._call(command, self._events.get(), max(0.0, deadline - realtime.monotonic()))
        return dict(info)

    def _cancel(self) -> None:
        """End a migration that goes on: at its end a VM that runs by then would stand still."""
        try:
            self.execute("migrate_cancel")
            self._migrated("migrate_cancel", _COMMAND_TIMEOUT)
        except LimaError as error:
            raise self._error("migrate_cancel", str(error.seen), InstanceDiedError) from error

    def _call(self, command: str, work: Coroutine[Any, Any, T], timeout: float) -> T:
        import qemu.qmp

        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            problem, kind = f"no answer within {timeout:.0f} s", LimaError
        except qemu.qmp.ExecuteError as error:
            problem, kind = str(error), LimaError
        except (qemu.qmp.QMPError, OSError, EOFError) as error:
            problem, kind = f"{type(error).__name__}: {error}", InstanceDiedError
        raise self._error(command, problem, kind)

    def _error(self, command: str, problem: str, kind: type[LimaError] = LimaError) -> LimaError:
        return kind(f"QEMU could not do {command}", ran=f"{command} on {self._path}", seen=problem)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def guest_address(booted_as: Sequence[str]) -> str:
    """The address in its own network of a guest that has booted as these instances.

    Lima makes the MAC address from an instance's name, and QEMU's DHCP server, whose memory is
    kept with the guest's, has an address for each, from the first on.
    """
    return f"192.168.5.{_FIRST_ADDRESS + len(booted_as) - 1}"
