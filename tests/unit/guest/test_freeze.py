"""What is made of a guest's answers; what the script does is seen in tests/plugin."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import ConnectionLostError, InstanceDiedError, LimaError
from pytest_lima.guest import freeze
from pytest_lima.guest.freeze import NotFrozenError, frozen
from pytest_lima.guest.ssh import Connection

if TYPE_CHECKING:
    import paramiko
    from conftest import Guest


class Freezing:
    """A guest that says these two lines; the second when it is told to thaw."""

    def __init__(self, first: str = "frozen\n", second: str = "thawed=0\n") -> None:
        self.first = first
        self.second = second
        self.told = b""

    def __call__(self, command: str, channel: paramiko.Channel) -> bool:
        assert "exec sudo -n sh -c" in command
        channel.sendall(self.first.encode())
        if self.first == "frozen\n":
            self.told = channel.recv(10)
        channel.sendall(self.second.encode())
        channel.send_exit_status(0)
        channel.close()
        return True


def test_it_is_frozen_inside_and_no_longer(guest: Guest, connection: Connection) -> None:
    guest.answer = freezing = Freezing()
    with frozen(connection):
        assert freezing.told == b""
    assert freezing.told == b"\n"


def test_what_startup_files_print_is_passed_over(guest: Guest, connection: Connection) -> None:
    guest.noise = "a day\nfrozen like any other\n\x1b]0;title\a"
    guest.answer = freezing = Freezing()
    with frozen(connection):
        assert freezing.told == b""
    guest.answer = Freezing("not frozen: no\n")
    with pytest.raises(NotFrozenError), frozen(connection):
        pass


def test_it_is_thawed_when_its_disk_can_t_be_taken(guest: Guest, connection: Connection) -> None:
    guest.answer = freezing = Freezing()
    with pytest.raises(OSError, match="No space left"), frozen(connection):
        raise OSError("No space left on device")
    assert freezing.told == b"\n"


@pytest.mark.parametrize(
    ("guest_says", "error", "seen"),
    [
        (Freezing("not frozen: fsfreeze: not found\n"), NotFrozenError, "fsfreeze: not found"),
        (Freezing("", ""), LimaError, "no answer"),
        (Freezing("half", ""), LimaError, "half"),
    ],
)
def test_one_that_is_not_frozen(
    guest: Guest, connection: Connection, guest_says: Freezing, error: type[LimaError], seen: str
) -> None:
    guest.answer = guest_says
    with pytest.raises(error) as caught, frozen(connection):
        pytest.fail("its disk was taken")
    assert type(caught.value) is error
    assert seen in str(caught.value.seen)


def test_one_that_did_not_stay_frozen_is_no_use(guest: Guest, connection: Connection) -> None:
    guest.answer = Freezing(second="thawed=1\n")
    with pytest.raises(LimaError, match="did not stay frozen"), frozen(connection):
        pass


def test_one_that_is_not_heard_of_again_is_as_good_as_dead(
    guest: Guest, connection: Connection
) -> None:
    guest.answer = Freezing(second="")
    with pytest.raises(InstanceDiedError, match="frozen still"), frozen(connection):
        pass


def test_one_that_does_not_answer_in_time(
    guest: Guest, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "_FREEZE_TIMEOUT", 0.3)
    guest.answer = Freezing("frozen")  # and no end of the line
    with pytest.raises(LimaError, match="was not frozen"), frozen(connection):
        pass


def test_a_connection_that_is_gone(connection: Connection) -> None:
    connection.close()
    with pytest.raises(ConnectionLostError), frozen(connection):
        pass


def test_the_script_is_sh() -> None:
    subprocess.run(["sh", "-n", "-c", freeze._HOLD], check=True)
    subprocess.run(["sh", "-n", "-c", freeze._BACK], check=True)
