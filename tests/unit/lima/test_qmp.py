from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_lima.errors import InstanceDiedError, LimaError
from pytest_lima.lima import qmp
from pytest_lima.lima.qmp import Monitor, guest_address

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
                    "capabilities": ["oob"]}}  # fmt: skip
Answer = Callable[[str, dict[str, Any]], "list[dict[str, Any]] | None"]


class Qemu:
    """The other side: answers each command by a function of the test, None to hang up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[str] = []
        self.files: list[int] = []
        self.answer: Answer = lambda command, arguments: [{"return": {}}]

    def talk(self, connection: socket.socket) -> None:
        with connection.makefile("wb", buffering=0) as out:
            out.write(json.dumps(GREETING).encode() + b"\n")
            data = b""
            while True:
                more, files, _, _ = socket.recv_fds(connection, 65536, 4)
                if not more:
                    return
                self.files += files
                data += more
                while b"\n" in data or data.endswith(b"}"):
                    line, _, data = data.partition(b"\n") if b"\n" in data else (data, b"", b"")
                    request = json.loads(line)
                    answers = self._answers(request)
                    if answers is None:
                        return
                    for one in answers:
                        if "event" not in one and "id" in request:
                            one = {**one, "id": request["id"]}
                        out.write(json.dumps(one).encode() + b"\n")

    def _answers(self, request: dict[str, Any]) -> list[dict[str, Any]] | None:
        if request["execute"] == "qmp_capabilities":
            return [{"return": {}}]
        self.asked.append(request["execute"])
        return self.answer(request["execute"], request.get("arguments", {}))


@pytest.fixture
def qemu(short_path: Path, serve: Callable[..., None]) -> Qemu:
    one = Qemu(short_path / "qmp.sock")
    serve(one.path, one.talk)
    return one


def event(name: str, **data: object) -> dict[str, Any]:
    return {"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 0}}


def test_a_command_returns_what_qemu_returns(qemu: Qemu) -> None:
    qemu.answer = lambda command, arguments: [{"return": {"status": "running", **arguments}}]
    with Monitor(qemu.path) as monitor:
        assert monitor.execute("query-status", {"a": 1}) == {"status": "running", "a": 1}


def test_a_refusal_is_an_error_with_qemu_s_reason(qemu: Qemu) -> None:
    qemu.answer = lambda *_: [{"error": {"class": "GenericError", "desc": "no such device"}}]
    with Monitor(qemu.path) as monitor, pytest.raises(LimaError, match="no such device") as caught:
        monitor.execute("eject")
    assert not isinstance(caught.value, InstanceDiedError)


def test_nobody_there(short_path: Path) -> None:
    with pytest.raises(InstanceDiedError):
        Monitor(short_path / "qmp.sock")


def test_a_qemu_that_ends_is_told_from_one_that_refuses(qemu: Qemu) -> None:
    qemu.answer = lambda *_: None
    with Monitor(qemu.path) as monitor, pytest.raises(InstanceDiedError):
        monitor.execute("cont")


def test_no_answer_is_not_waited_for_without_end(qemu: Qemu) -> None:
    qemu.answer = lambda *_: []
    with Monitor(qemu.path) as monitor, pytest.raises(LimaError, match="no answer within"):
        monitor.execute("cont", timeout=0.05)


def test_it_works_inside_a_running_loop(qemu: Qemu) -> None:
    """As in an async test of a user's."""
    import asyncio

    async def asynchronous() -> object:
        with Monitor(qemu.path) as monitor:
            return monitor.execute("query-status")

    assert asyncio.run(asynchronous()) == {}


def test_a_file_is_passed_by_name(qemu: Qemu, tmp_path: Path) -> None:
    with (tmp_path / "state").open("wb") as file, Monitor(qemu.path) as monitor:
        monitor.pass_file("state", file.fileno())
    assert qemu.asked == ["getfd"]
    [received] = qemu.files
    os.write(received, b"memory")
    os.close(received)
    assert (tmp_path / "state").read_bytes() == b"memory"


def migrating(*states: dict[str, Any]) -> Answer:
    left = list(states)

    def answer(command: str, _: dict[str, Any]) -> list[dict[str, Any]]:
        if command != "query-migrate":
            return [{"return": {}}]
        state = left.pop(0)
        return [{"return": state}, event("MIGRATION", status="changed")]

    return answer


def test_a_migration_is_waited_for(qemu: Qemu) -> None:
    qemu.answer = migrating({}, {"status": "active"}, {"status": "completed"})
    with Monitor(qemu.path) as monitor:
        monitor.migrate("migrate", {"uri": "fd:state"}, 10)
    assert qemu.asked == ["migrate-set-capabilities", "migrate", *["query-migrate"] * 3]


def test_a_migration_that_fails_says_why(qemu: Qemu) -> None:
    qemu.answer = migrating({"status": "failed", "error-desc": "No space left on device"})
    with Monitor(qemu.path) as monitor, pytest.raises(LimaError, match="No space left"):
        monitor.migrate("migrate", {"uri": "fd:state"}, 10)


def test_a_migration_has_a_deadline(qemu: Qemu) -> None:
    def answer(command: str, _: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"return": {"status": "active"} if command == "query-migrate" else {}}]

    qemu.answer = answer
    with Monitor(qemu.path) as monitor, pytest.raises(LimaError, match="no answer within"):
        monitor.migrate("migrate-incoming", {"uri": "fd:state"}, 0.05)
    assert "migrate_cancel" not in qemu.asked


def test_one_that_is_too_slow_is_cancelled(qemu: Qemu) -> None:
    """Its end would make a VM stand still that goes on meanwhile."""

    def answer(command: str, _: dict[str, Any]) -> list[dict[str, Any]]:
        if command != "query-migrate":
            return [{"return": {}}]
        cancelled = "migrate_cancel" in qemu.asked
        answers = [{"return": {"status": "cancelled" if cancelled else "active"}}]
        return [*answers, event("MIGRATION", status="x")] if cancelled else answers

    qemu.answer = answer
    with (
        Monitor(qemu.path) as monitor,
        pytest.raises(LimaError, match="no answer within") as caught,
    ):
        monitor.migrate("migrate", {"uri": "fd:state"}, 0.05)
    assert not isinstance(caught.value, InstanceDiedError)
    assert qemu.asked[-2:] == ["migrate_cancel", "query-migrate"]


def test_one_that_can_not_be_cancelled_takes_its_vm_with_it(
    qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qmp, "_COMMAND_TIMEOUT", 0.1)
    qemu.answer = lambda command, _: [
        {"return": {"status": "active"} if command == "query-migrate" else {}}
    ]
    with Monitor(qemu.path) as monitor, pytest.raises(InstanceDiedError, match="migrate_cancel"):
        monitor.migrate("migrate", {"uri": "fd:state"}, 0.05)


def monitor_says(*texts: str) -> Answer:
    left = list(texts)
    return lambda *_: [{"return": left.pop(0)}]


def test_ssh_is_led_to_another_address(qemu: Qemu) -> None:
    qemu.answer = monitor_says("host forwarding rule for tcp:127.0.0.1:60022 removed\r\n", "")
    with Monitor(qemu.path) as monitor:
        monitor.lead_ssh_to(60022, "192.168.5.16")


@pytest.mark.parametrize(
    "texts",
    [
        ("host forwarding rule for tcp:127.0.0.1:60022 not found\r\n",),
        ("host forwarding rule for tcp:127.0.0.1:60022 removed\r\n", "Could not set up\r\n"),
    ],
)
def test_a_complaint_of_the_human_monitor_is_an_error(qemu: Qemu, texts: tuple[str, ...]) -> None:
    qemu.answer = monitor_says(*texts)
    with Monitor(qemu.path) as monitor, pytest.raises(LimaError, match=texts[-1].strip()):
        monitor.lead_ssh_to(60022, "192.168.5.16")


def test_the_address_of_a_guest_counts_its_boots() -> None:
    assert guest_address(["pl-1"]) == "192.168.5.15"
    assert guest_address(["pl-1", "pl-2"]) == "192.168.5.16"
