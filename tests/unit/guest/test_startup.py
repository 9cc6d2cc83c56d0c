"""What startup files of the login user do: it is no output, eats no input, and a command that
they keep from running is no command that has run."""

from __future__ import annotations

import shutil
from pathlib import Path

import paramiko
import pytest

from pytest_lima.errors import CommandTimeoutError, LimaError
from pytest_lima.guest import files, shell, startup
from pytest_lima.guest.commands import run

BASH = shutil.which("bash", path="/usr/bin:/bin") or ""
pytestmark = pytest.mark.skipif(not BASH, reason="startup files are a bash's here")

# How a command is run: by a shell that stays, or on a channel of its own.
WAYS = {
    "stays": {},
    "user": {"user": "root"},
    "user-input": {"user": "root", "input": "fed\n"},
}
# They keep the command from running.
ENDING = [
    "exec /bin/dash", "exec /bin/sh", "exit 0", "exit 1", "exit 7", "exec true", "kill -9 $$",
    "set -e; false", "set -n", "exec >/dev/null", "exec 2>/dev/null", "exec >&- 2>&-",
    "exec >/dev/null 2>&1", "exec >log 2>&1",
    "exec > >(cat >/dev/null)",
    "echo pytest-lima-pid=$$; echo pytest-lima-pid=$$ >&2; exit 0",
]  # fmt: skip
# They only make noise, or try to.
NOISY = [
    "echo motd; echo hint >&2", "printf 'no newline'; printf 'none here' >&2", "set -x", "set -v",
    "trap 'echo bye; echo bye >&2' EXIT", "trap 'echo debug' DEBUG", "read -r line",
    "read -r a b; echo $a",
    "echo() { printf shadowed; }",
    "exit() { :; }", "eval() { echo eval; }", "read() { echo read; }",
    "printf() { builtin echo printf; }", "exec() { :; }", "unset() { echo unset; }", "set() { :; }",
    "trap() { :; }", "cd() { builtin cd \"$@\" && ls -a; }", "export() { echo export; }",
    "shopt -s expand_aliases; alias exit=false eval=false read=false", "set -u", "set -a", "IFS=:",
    "CDPATH=/:/tmp", "return 3", "set -o posix", "yes | head -c 300000", "command -v no-such",
]  # fmt: skip


class Speaking(paramiko.SubsystemHandler):
    """A login shell that speaks where an SFTP server should."""

    def __init__(self, channel, name, server, said: bytes) -> None:
        super().__init__(channel, name, server)
        self.said = said

    def start_subsystem(self, name, transport, channel) -> None:
        channel.sendall(self.said)
        channel.sendall_stderr(b"and a hint\n")
        channel.close()


@pytest.fixture
def bashrc(guest) -> Path:
    """The file; read by the login shell alone, as for root's there is another."""
    path = guest.root / "bashrc"
    loader = guest.root / "loader"
    loader.write_text(f'BASH_ENV=\nunset BASH_ENV\n. "{path}"\n')
    login = guest.bin / "login-bash"
    login.write_text(f'#!/bin/sh\nexport BASH_ENV={loader}\nexec {BASH} "$@"\n')
    login.chmod(0o755)
    guest.shell = str(login)
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("said", NOISY)
def test_what_they_print_is_no_output_and_what_they_read_no_input(
    connection, bashrc, said: str, way: str
) -> None:
    bashrc.write_text(said + "\n")
    for _ in range(2):
        result = run(connection, ["/bin/sh", "-c", "cat; echo out; echo err >&2; exit 3"],
                     cwd="/usr", check=False, **WAYS[way])  # fmt: skip
        fed = WAYS[way].get("input", "")
        assert (result.returncode, result.stdout, result.stderr) == (3, f"{fed}out\n", "err\n")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("said", ENDING)
def test_a_command_that_they_keep_from_running_has_not_run(
    connection, bashrc, guest, monkeypatch, said: str, way: str
) -> None:
    monkeypatch.setattr(startup, "_OTHER_OUTPUT", 0.5)
    bashrc.write_text(f"echo before; {said}\n")
    with pytest.raises(LimaError, match="startup files") as caught:
        run(connection, ["touch", f"{guest.root}/ran"], check=False, **WAYS[way])
    assert type(caught.value).__name__ == "NotBegunError"
    assert f"ran: touch {guest.root}/ran" in str(caught.value)
    if "exec" not in said:
        assert "before" in str(caught.value.seen)
    assert not (guest.root / "ran").exists()
    bashrc.write_text("")
    assert run(connection, "echo next").stdout == "next\n"


def test_those_of_another_user_count_too(connection, bashrc, guest, tool) -> None:
    bashrc.write_text("")
    root = tool("root-sh", "echo motd; exit 0")
    tool("sudo", f'shift 5; shift; exec {root} "$@"')
    with pytest.raises(LimaError, match="startup files"):
        run(connection, ["echo", "x"], user="root")


@pytest.mark.parametrize("given", [{}, {"input": "fed"}])
def test_those_that_never_end_are_named_and_nothing_runs_later(
    connection, bashrc, guest, until, given
) -> None:
    bashrc.write_text(f"echo waiting\nuntil [ -e {guest.root}/go ]; do sleep 0.05; done\n"
                      f"touch {guest.root}/gone\n")  # fmt: skip
    with pytest.raises(CommandTimeoutError, match="had not begun it") as caught:
        run(connection, f"touch {guest.root}/ran; echo $$", timeout=0.7, **given)
    assert "startup files" in str(caught.value)
    assert "seen: waiting" in str(caught.value)
    (guest.root / "go").touch()
    assert until((guest.root / "gone").exists)
    assert run(connection, "echo next").stdout == "next\n"
    assert not (guest.root / "ran").exists()


def test_those_that_read_all_there_is_are_named(connection, bashrc, guest, monkeypatch) -> None:
    monkeypatch.setattr(shell, "_START_TIMEOUT", 0.3)
    bashrc.write_text("cat >/dev/null\n")
    with pytest.raises(CommandTimeoutError, match="startup files in the guest wait for"):
        run(connection, f"touch {guest.root}/ran", timeout=1)
    assert not (guest.root / "ran").exists()


def test_directories_come_and_go_past_them(connection, bashrc, guest, tmp_path) -> None:
    bashrc.write_text("printf noise; printf noise >&2; read -r line; tar() { :; }; exec() { :; }\n")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file").write_bytes(b"data" * 100_000)
    files.put(connection, tmp_path / "local", f"{guest.root}/there")
    files.get(connection, f"{guest.root}/there", tmp_path / "back")
    assert (tmp_path / "back" / "file").read_bytes() == b"data" * 100_000

    bashrc.write_text("exec /bin/dash\n")
    with pytest.raises(LimaError, match="startup files"):
        files.put(connection, tmp_path / "local", f"{guest.root}/other")
    with pytest.raises(LimaError, match="startup files"):
        files.get(connection, f"{guest.root}/there", tmp_path / "again")
    assert not (guest.root / "other").exists()


@pytest.mark.parametrize("said", [b"motd of the day\n", b"\n", b"hi"])
def test_what_they_print_before_sftp_is_shown(connection, guest, said: bytes) -> None:
    guest.transports[-1].subsystem_table["sftp"] = (Speaking, (), {"said": said})
    with pytest.raises(LimaError, match="SFTP server.*did not begin") as caught:
        files.read_bytes(connection, "/etc/hostname")
    assert "startup files" in str(caught.value)
    assert connection.alive
    assert run(connection, "echo next").stdout == "next\n"
