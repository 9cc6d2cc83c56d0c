"""The script runs here, on files of the test, with an sshd and an ssh-keygen that are strict."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import psutil
import pytest
from fakelima.hearing import hearing

from pytest_lima.errors import StartError
from pytest_lima.guest import rekey
from pytest_lima.guest.ssh import Connection

if TYPE_CHECKING:
    from conftest import Guest

# Makes a key that nobody has, in the shape of OpenSSH's; refuses other calls and questions.
KEYGEN = """\
[ "$1 $2 $3 $4 $6" = "-q -N  -f -t" ] || { echo "unknown call: $*" >&2; exit 2; }
file=$5; kind="$7 $8 $9"
[ ! -e "$file" ] || { echo "$file already exists. Overwrite (y/n)?"; read -r answer; exit 1; }
case $kind in
  "ed25519  ") name=ssh-ed25519 ;;
  "ecdsa -b 256"|"ecdsa -b 521") name=ecdsa-sha2-nistp$9 ;;
  "rsa  ") name=ssh-rsa ;;
  *) echo "unknown kind: $kind" >&2; exit 2 ;;
esac
number=$(od -An -tx1 -N40 /dev/urandom | tr -d ' \\n')
echo "private $number" >"$file"; echo "$name AAAA$number root@guest" >"$file.pub"
"""
SSHD = """\
[ "$*" = -T ] || { echo "unknown call: $*" >&2; exit 2; }
"""
# On SIGHUP it takes its time, and has a pid again when it listens.
DAEMON = """\
listen() { echo $$ >"$0"; }
load() { sleep 0.3; cat "$1"/*.pub >"$0.loaded"; listen; }
trap 'load "$1"' HUP
listen
while :; do sleep 0.05; done
"""
OLD = "B" * 64


@pytest.fixture
def sshd(
    tmp_path: Path, tool: Callable[..., Path], said: Callable[..., list[int]]
) -> Iterator[Sshd]:
    one = Sshd(tmp_path, tool)
    assert said(one.pid_file) == [one.process.pid]
    yield one
    one.process.kill()
    one.process.wait()


class Sshd:
    """The files and the process that an sshd says are its own."""

    def __init__(self, folder: Path, tool: Callable[..., Path]) -> None:
        self.folder = folder / "host keys"
        self.folder.mkdir()
        self.pid_file = folder / "sshd.pid"
        self.loaded = folder / "sshd.pid.loaded"
        self.process = subprocess.Popen(
            hearing(["sh", "-c", DAEMON, str(self.pid_file), str(self.folder)])
        )
        self._tool = tool
        tool("ssh-keygen", KEYGEN)

    def has(self, kinds: Mapping[str, str], *further: str) -> None:
        """Give it old keys, by the names of their files; and further ones that aren't there."""
        for name, kind in kinds.items():
            (self.folder / name).write_text("the old one")
            (self.folder / f"{name}.pub").write_text(f"{kind} {OLD} root@kept\n")
        lines = ["port 22", f"pidfile {self.pid_file}", "subsystem sftp x"]
        lines += [f"hostkey {self.folder / name}" for name in (*kinds, *further)]
        self._tool("sshd", SSHD + f"printf '%s\\n' {shlex.join(lines)}")

    def keys(self) -> dict[str, str]:
        """The public keys that lie in its folder."""
        rows = [path.read_text().split() for path in self.folder.glob("*.pub")]
        return {kind: key for kind, key, _ in rows}

    def has_loaded(self) -> dict[str, str]:
        """What it has read when its pid was to be seen again."""
        rows = [line.split() for line in self.loaded.read_text().splitlines()]
        return {kind: key for kind, key, _ in rows}


def test_each_type_is_made_anew_and_told_but_rsa_is_left_out(
    connection: Connection, sshd: Sshd
) -> None:
    sshd.has({"one": "ssh-rsa", "two": "ssh-ed25519", "three": "ecdsa-sha2-nistp521"}, "missing")
    keys = rekey.renew(connection)
    assert set(keys.keys) == {"ssh-ed25519", "ecdsa-sha2-nistp521"}
    assert keys.keys == sshd.keys()
    assert OLD not in keys.keys.values()
    assert {path.name for path in sshd.folder.iterdir()} == {"two", "two.pub", "three", "three.pub"}
    assert "the old one" not in {path.read_text() for path in sshd.folder.iterdir()}
    assert not keys.lasting  # at its next boot it is a new instance to cloud-init
    assert sshd.has_loaded() == keys.keys


def test_no_two_guests_get_the_same(connection: Connection, sshd: Sshd) -> None:
    sshd.has({"key": "ssh-ed25519"})
    sshd.pid_file.unlink()
    assert rekey.renew(connection).keys != rekey.renew(connection).keys


def test_rsa_is_made_where_there_is_nothing_else(connection: Connection, sshd: Sshd) -> None:
    sshd.has({"dsa": "ssh-dss", "rsa": "ssh-rsa"})
    keys = rekey.renew(connection)
    assert list(keys.keys) == ["ssh-rsa"] and keys.keys == sshd.keys()
    assert sshd.has_loaded() == keys.keys


def test_an_sshd_of_each_connection_has_nothing_to_load(connection: Connection, sshd: Sshd) -> None:
    sshd.has({"key": "ssh-ed25519"})
    sshd.pid_file.unlink()
    assert set(rekey.renew(connection).keys) == {"ssh-ed25519"}
    assert not sshd.loaded.exists()


def test_a_guest_that_has_no_keys_in_files(connection: Connection, sshd: Sshd) -> None:
    sshd.has({}, "missing")
    with pytest.raises(StartError, match="of its own") as raised:
        rekey.renew(connection)
    assert "its sshd has no host keys in files" in str(raised.value)
    assert "--lima-host-keys=kept" in str(raised.value)


def test_a_key_that_can_t_be_made(
    connection: Connection, sshd: Sshd, tool: Callable[..., Path]
) -> None:
    sshd.has({"key": "ssh-ed25519"})
    tool("ssh-keygen", "echo 'No space left on device' >&2; exit 1")
    with pytest.raises(StartError) as raised:
        rekey.renew(connection)
    assert "No space left on device" in str(raised.value)
    assert not sshd.loaded.exists()


def test_an_sshd_that_a_socket_starts_may_end(
    connection: Connection, sshd: Sshd, until: Callable[..., bool]
) -> None:
    sshd.has({"key": "ssh-ed25519"})
    sshd.process.kill()
    sshd.process.wait()
    with subprocess.Popen(hearing(["sleep", "60"])) as other:  # SIGHUP ends it
        assert until(lambda: psutil.Process(other.pid).name() == "sleep")
        sshd.pid_file.write_text(f"{other.pid}\n")
        collector = threading.Thread(target=other.wait)
        collector.start()
        assert set(rekey.renew(connection).keys) == {"ssh-ed25519"}
        collector.join()
        assert other.returncode == -signal.SIGHUP


def test_an_sshd_that_does_not_come_back(
    connection: Connection, sshd: Sshd, tool: Callable[..., Path]
) -> None:
    sshd.has({"key": "ssh-ed25519"})
    tool("seq", "echo 1")
    sshd.process.send_signal(signal.SIGSTOP)
    with pytest.raises(StartError) as raised:
        rekey.renew(connection)
    assert "its sshd does not listen again" in str(raised.value)


def test_without_ssh_keygen_nothing_is_touched(tmp_path: Path, sshd: Sshd) -> None:
    sshd.has({"key": "ssh-ed25519"})
    only = tmp_path / "only"
    only.mkdir()
    for name in ("rm", "cat"):
        (only / name).symlink_to(str(shutil.which(name)))
    (only / "sshd").symlink_to(tmp_path / "bin" / "sshd")
    done = subprocess.run(["/bin/sh", "-c", rekey._RENEW], env={"PATH": str(only)}, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode != 0 and "it has no ssh-keygen" in done.stderr
    assert (sshd.folder / "key").read_text() == "the old one"


def test_a_guest_that_tells_nothing(guest: Guest, connection: Connection) -> None:
    def agree(_: str, channel: paramiko.Channel) -> bool:
        channel.send_exit_status(0)
        channel.close()
        return True

    guest.misbehave = agree
    with pytest.raises(StartError, match="of its own"):
        rekey.renew(connection)
