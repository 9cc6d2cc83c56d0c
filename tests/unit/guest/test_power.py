from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_lima.errors import CommandError, ReadyTimeoutError
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


@pytest.mark.parametrize(
    ("asked", "cold", "slowness", "seconds", "why"),
    [
        (5.0, 80.0, 10.0, 5.0, "those of reboot(timeout=…)"),
        (None, 80.0, 10.0, 240.0, "3 times the 80 s of its cold boot"),
        (None, 5.0, 1.0, 60.0, "and 60 at least"),
        (None, None, 1.0, 120.0, "cold boot was not seen"),
        (None, None, 10.0, 1200.0, "cold boot was not seen"),
        (None, 5000.0, 10.0, 6000.0, "--lima-timeout"),
    ],
)
def test_how_long_a_reboot_is_waited_for(
    asked: float | None, cold: float | None, slowness: float, seconds: float, why: str
) -> None:
    patience = power.patience(asked, cold, slowness, 6000.0)
    assert patience.seconds == seconds
    assert why in patience.why


def test_a_wait_that_was_too_long_says_how_long_and_why() -> None:
    patience = power.patience(None, 80.0, 10.0, 6000.0)
    with pytest.raises(ReadyTimeoutError) as caught, patience.explained("pl-1"):
        raise ReadyTimeoutError("no SSH", seen="refused", remedy="raise --lima-timeout", log="/l")
    told = str(caught.value)
    assert "pl-1 is not back 240 s after it was asked to reboot" in told
    assert "no SSH; refused" in told and "80 s of its cold boot" in told and "/l" in told
    assert "raise --lima-timeout" not in told
