"""What differs between shells that stay and channels; test_commands has what they share."""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from pytest_lima.errors import CommandTimeoutError
from pytest_lima.guest import shell
from pytest_lima.guest.commands import run

BASH = shutil.which("bash", path="/usr/bin:/bin")
pytestmark = pytest.mark.skipif(
    BASH is None or sys.platform != "linux", reason="a shell that stays is a bash on Linux"
)


@pytest.fixture(autouse=True)
def _bash(guest) -> None:
    guest.shell = BASH


def test_one_shell_runs_many_commands_and_no_channel_is_opened(connection, guest) -> None:
    for number in range(5):
        assert run(connection, f"echo {number}").stdout == f"{number}\n"
    run(connection, ["true"])
    assert (guest.shells, guest.commands) == (1, [])


@pytest.mark.parametrize(
    "line",
    [
        "cd /", "export A=1", "A=1", "umask 077", "ulimit -n 17", "trap 'echo trapped' EXIT",
        "trap '' TERM", "exec >/dev/null", "exec 3>&1 1>&2", "exec true", "exit 7", "set -eu",
        "set -x", "set -- a b", "shopt -s nullglob", "alias ls=false", "ls() { false; }",
        "readonly pl_end=x", "IFS=x", "unset PATH", "exec 0</etc/passwd", "exec 1>&- 2>&-",
        "LC_ALL=en_US.UTF-8", "PS4=x; set -o posix", "kill -9 $BASHPID", "hash -p /bin/false ls",
        "read -r a", "return 3", "break", "}", "'", "cat <<EOF", "(((", "coproc true",
    ],
)  # fmt: skip
def test_nothing_of_a_command_is_left_for_the_next(connection, line: str) -> None:
    probe = (
        'pwd; umask; ulimit -n; trap; set +o; shopt; alias; declare -F; echo "$# $IFS $PATH $A";'
        "ls -d /; echo err >&2; ls -l /proc/self/fd | wc -l; declare -p | grep '^[^=]*pl_'"
    )
    before = run(connection, probe, check=False)
    run(connection, line, check=False)
    after = run(connection, probe, check=False)
    assert (after.stdout, after.stderr) == (before.stdout, before.stderr)
    assert " pl_" not in after.stdout


@pytest.mark.parametrize("line", ["echo $$", "echo ${$}", "eval 'echo $''$'", '. "$FILE"'])
def test_a_command_that_asks_for_its_process_has_one(connection, guest, line: str) -> None:
    (guest.root / "file").write_text("echo $$\n")
    env = {"FILE": f"{guest.root}/file"}
    run(connection, "true")
    pids = {run(connection, line, env=env).stdout for _ in range(3)}
    assert len(pids) == 3
    assert guest.shells == 1
    assert len(guest.commands) == 3


@pytest.mark.parametrize("count", [1, 15, 33])
def test_output_that_begins_like_a_mark(connection, monkeypatch, count: int) -> None:
    """A command can't know its mark, but may happen to print the beginning of it."""
    monkeypatch.setattr(shell.secrets, "token_hex", lambda _: "a" * 15 + "b")
    seen: list[tuple[str, bytes]] = []
    said = "a" * count
    line = f"printf {said}; printf {said} >&2; printf x; printf {said} >&2"
    result = run(connection, line, on_output=lambda name, data: seen.append((name, data)))
    assert (result.stdout, result.stderr) == (said + "x", said * 2)
    assert b"".join(data for name, data in seen if name == "stdout") == result.stdout_bytes


def test_what_a_former_command_has_seen_of_the_protocol_is_no_use(connection) -> None:
    imitation = "printf '0123456789abcdef 0 0\\npytest-lima-shell=1\\npytest-lima-pid=1\\n'"
    result = run(connection, f"{imitation}; {imitation} >&2; exit 5", check=False)
    assert result.returncode == 5
    assert result.stdout == result.stderr
    assert result.stdout.endswith("pytest-lima-pid=1\n")


def test_marks_are_new_for_each_command(connection, monkeypatch) -> None:
    marks: list[str] = []
    made = shell.secrets.token_hex
    monkeypatch.setattr(shell.secrets, "token_hex", lambda n: marks.append(made(n)) or marks[-1])
    for _ in range(3):
        run(connection, "true")
    assert len(set(marks)) == 3


@pytest.mark.parametrize("start", ["", "setsid "])
def test_outputs_that_are_held_open_are_waited_for(connection, guest, start: str) -> None:
    line = f"{start}sh -c 'sleep 0.5; echo late; echo err >&2' & echo soon"
    result = run(connection, line)
    assert (result.stdout, result.stderr) == ("soon\nlate\n", "err\n")
    assert run(connection, "echo next").stdout == "next\n"
    assert guest.shells == 2


def test_what_goes_on_with_outputs_of_its_own_is_not_waited_for(connection, until) -> None:
    pid = int(run(connection, "sleep 60 >/dev/null 2>&1 & echo $!").stdout)
    try:
        # It's another command's, which a timeout has nothing to do with.
        with pytest.raises(CommandTimeoutError):
            run(connection, "sleep 60", timeout=0.3)
        assert run(connection, "echo next").stdout == "next\n"
        assert psutil.Process(pid).is_running()
    finally:
        psutil.Process(pid).kill()


def test_the_outputs_of_a_background_process_stay_with_its_command(connection) -> None:
    """Even while other commands run."""
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(run, connection, "(sleep 0.5; echo late) & true")
        time.sleep(0.1)
        assert [run(connection, "echo x").stdout for _ in range(5)] == ["x\n"] * 5
        assert slow.result().stdout == "late\n"


def test_a_shell_that_is_killed_is_replaced(connection, guest) -> None:
    result = run(connection, "echo begun; kill -9 0", check=False)
    assert (result.returncode, result.stdout) == (137, "begun\n")
    assert run(connection, "echo next").stdout == "next\n"
    assert guest.shells == 2


def test_a_shell_that_died_between_commands_is_replaced(connection, guest, until) -> None:
    pid = int(run(connection, "ps -o ppid= $BASHPID").stdout)
    psutil.Process(pid).kill()
    assert until(lambda: not connection.idle[0].is_clean())
    assert run(connection, "echo next").stdout == "next\n"


def test_what_startup_files_print_is_not_the_commands(connection, guest, tool) -> None:
    guest.shell = str(tool("noisy", f'echo motd; echo hint >&2; exec {BASH} "$@"'))
    result = run(connection, "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("said", ["echo 'fish: Unknown command' >&2; exit 127", "exit 0"])
def test_another_shell_is_asked_once(connection, guest, tool, said: str) -> None:
    other = f'case $2 in ": pytest-lima"*) {said};; esac; exec /bin/sh "$@"'
    guest.shell = str(tool("other", other))
    for number in range(3):
        assert run(connection, f"echo {number}").stdout == f"{number}\n"
    assert (guest.shells, len(guest.commands)) == (1, 3)
    assert not connection.has_shells


@pytest.mark.parametrize("other", ["dash", "busybox", "ksh", "mksh", "zsh"])
def test_real_other_shells_leave_at_once(connection, guest, tool, other: str) -> None:
    path = shutil.which(other)
    if path is None:
        pytest.skip(f"there is no {other} here")
    guest.shell = path if other != "busybox" else str(tool("ash", f'exec {path} ash "$@"'))
    assert run(connection, "echo out").stdout == "out\n"
    assert not connection.has_shells


def test_one_session_is_enough(connection, guest, tmp_path) -> None:
    guest.max_sessions = 1
    for number in range(3):
        assert run(connection, f"echo {number}").stdout == f"{number}\n"
        assert run(connection, "cat", input="fed").stdout == "fed"
        with connection.sftp() as sftp:
            assert sftp.stat(str(guest.root)).st_mode


def test_a_timeout_ends_the_command_that_has_the_only_session(connection, guest, gone) -> None:
    guest.max_sessions = 1
    with pytest.raises(CommandTimeoutError, match="raise timeout=") as caught:
        run(connection, "echo $BASHPID; exec sleep 60", timeout=0.5)
    assert gone(int(caught.value.stdout))
    assert run(connection, "echo next").stdout == "next\n"


def test_many_threads_have_shells_of_their_own(connection, guest) -> None:
    def command(number: int) -> bool:
        result = run(connection, f"echo {number}; sleep 0.02; echo {number} >&2; exit {number}",
                     check=False)  # fmt: skip
        return (result.returncode, result.stdout, result.stderr) == (
            number, f"{number}\n", f"{number}\n",
        )  # fmt: skip

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(command, range(100)))
    assert guest.commands == []


def test_long_and_foreign_lines(connection) -> None:
    line = "printf %s 'größe 日本' # " + "x" * 3_000_000
    assert run(connection, line).stdout == "größe 日本"
