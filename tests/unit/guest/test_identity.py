"""The scripts themselves change a machine's clock and name: they run in tests/e2e."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_lima.errors import ConnectionLostError, StartError
from pytest_lima.guest import clock, identity
from pytest_lima.guest.identity import Kept
from pytest_lima.guest.ssh import Connection

if TYPE_CHECKING:
    import paramiko
    from conftest import Guest

KEPT = Kept("the token", "lima-pl-old")


class Waking:
    """A guest that answers as the script does, with what a test changes."""

    def __init__(self, **facts: str) -> None:
        self.facts = {"reseeded": "0", "memory": KEPT.token, "disk": KEPT.token, **facts}
        self.script = ""
        self.told = ""

    def __call__(self, command: str, channel: paramiko.Channel) -> bool:
        self.script = command
        channel.sendall(b"awake\n")
        self.told = channel.recv(100).decode()
        facts = {"time": f"{time.time():.6f}", **self.facts}
        channel.sendall("".join(f"{key}={value}\n" for key, value in facts.items()).encode())
        channel.send_exit_status(0)
        channel.close()
        return True


def test_a_guest_that_wakes_up_is_told_who_it_is(guest: Guest, connection: Connection) -> None:
    guest.misbehave = waking = Waking()
    identity.wake(connection, KEPT, "lima-pl-new", "iid-17")
    for line in ("host=lima-pl-new", "old=lima-pl-old", "iid=iid-17"):
        assert f"{line}\n" in waking.script
    assert "exec sudo -n sh -c" in waking.script
    assert abs(float(waking.told) - time.time()) < 60  # the time, when it asked for it


def test_no_two_are_alike(guest: Guest, connection: Connection) -> None:
    guest.misbehave = waking = Waking()
    scripts = set()
    for _ in range(2):
        identity.wake(connection, KEPT, "lima-pl-new")
        scripts.add(waking.script)
    machines, seeds = ({line for script in scripts for line in script.splitlines()
                        if line.startswith(name)} for name in ("machine=", "random="))  # fmt: skip
    assert len(machines) == len(seeds) == 2


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"memory": "another"}, "its memory is not the kept one"),
        ({"disk": ""}, "its disk is not the kept one"),
        ({"reseeded": "1"}, "can't be reseeded"),
    ],
)
def test_a_doubtful_guest_is_refused(
    guest: Guest, connection: Connection, facts: dict[str, str], problem: str
) -> None:
    guest.misbehave = Waking(**facts)
    with pytest.raises(StartError, match=problem):
        identity.wake(connection, KEPT, "lima-pl-new")


@pytest.mark.parametrize("time", ["1000.5", "1000", ""])
def test_a_clock_that_seems_off_is_looked_at_again(
    guest: Guest, connection: Connection, monkeypatch: pytest.MonkeyPatch, time: str
) -> None:
    """On a busy machine the answer takes its time."""
    again: list[object] = []
    monkeypatch.setattr(clock, "correct", again.append)
    guest.misbehave = Waking()
    identity.wake(connection, KEPT, "lima-pl-new")
    assert again == []
    guest.misbehave = Waking(time=time)
    identity.wake(connection, KEPT, "lima-pl-new")
    assert again == [connection]


def test_a_guest_that_hangs_up(guest: Guest, connection: Connection) -> None:
    def hang_up(_: str, channel: paramiko.Channel) -> bool:
        channel.close()
        return True

    guest.misbehave = hang_up
    with pytest.raises((StartError, ConnectionLostError)):
        identity.wake(connection, KEPT, "lima-pl-new")


def test_each_kept_guest_has_a_token_of_its_own(guest: Guest, connection: Connection) -> None:
    def agree(_: str, channel: paramiko.Channel) -> bool:
        channel.send_exit_status(0)
        channel.close()
        return True

    guest.misbehave = agree
    one, two = (identity.keep(connection, "lima-pl-1") for _ in range(2))
    assert one.token != two.token and one.hostname == "lima-pl-1"
    assert one.token in guest.commands[0]


def test_the_scripts_are_sh() -> None:
    for script in (identity._KEEP, identity._WAKE):
        subprocess.run(["sh", "-n", "-c", script], check=True)


@pytest.mark.skipif(shutil.which("perl") is None, reason="there is no perl here")
def test_perl_writes_the_seed_itself(tmp_path: Path) -> None:
    """Where it can't, Python does so later, half a second on an emulated processor."""
    [program] = re.findall(r"(?s)seed='(.*?)'", identity._WAKE)
    file = tmp_path / "urandom"
    there = program.replace("/dev/urandom", str(file)).replace("ioctl(F, 0x5207, 0)", "1")
    assert there.count(str(file)) == 1 and "ioctl" not in there
    subprocess.run(["perl", "-e", there, "ab" * 32], check=True)
    assert file.read_bytes() == b"\xab" * 32
