from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_lima.errors import CommandError
from pytest_lima.guest import power
from pytest_lima.guest.commands import CommandResult


class Closable:
    closed = False

    def close(self) -> None:
        self.closed = True


def answers(status: int, stderr: bytes) -> Callable[..., CommandResult]:
    def fake(connection: object, command: str, *, check: bool = True, **_: object) -> CommandResult:
        result = CommandResult(command, status, b"", stderr, 0.1)
        if check and not result.ok:
            raise CommandError(result)
        return result

    return fake


@pytest.mark.parametrize("status", [0, 129, 137, 143])
def test_a_shell_that_goes_down_with_the_guest_is_no_refusal(monkeypatch, status: int) -> None:
    connection = Closable()
    monkeypatch.setattr(power, "run", answers(status, b""))
    power.reboot(connection)  # type: ignore[arg-type]
    assert connection.closed


def test_a_guest_that_refuses_to_reboot(monkeypatch) -> None:
    connection = Closable()
    monkeypatch.setattr(power, "run", answers(1, b"sudo: a password is required"))
    with pytest.raises(CommandError, match="a password is required"):
        power.reboot(connection)  # type: ignore[arg-type]
    assert connection.closed
