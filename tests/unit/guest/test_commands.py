from __future__ import annotations

import pickle
import re
import shutil
import sys
import threading

import psutil
import pytest

from pytest_lima.errors import CommandError, CommandTimeoutError, ConnectionLostError
from pytest_lima.guest.commands import CommandResult, run

HOSTILE = ["a b", "$HOME", "`id`", "'", '"', "\\", ";", "ü", "-n", "", "*", "\n", "~", "!x", "a\tb"]
BASH = shutil.which("bash", path="/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin")


@pytest.fixture(autouse=True, params=["channel", "shell"])
def way(request, guest) -> str:
    """Each command on a channel of its own, as for a dash, or by a shell that stays."""
    if request.param == "shell":
        if BASH is None or sys.platform != "linux":
            pytest.skip("a shell that stays is a bash on Linux")
        guest.shell = BASH
    return request.param


def test_status_and_outputs(connection) -> None:
    result = run(connection, "echo out; echo err >&2; exit 3", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert result.command == "echo out; echo err >&2; exit 3"
    assert 0 < result.duration < 60
    assert not result.ok
    assert run(connection, "true").ok


def test_check_raises_with_the_result(connection) -> None:
    with pytest.raises(CommandError, match="the command returned 2") as caught:
        run(connection, "echo why >&2; exit 2")
    assert caught.value.result.stderr == "why\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("kill -KILL $$", 137),
        ("sh -c 'kill -TERM $$'", 143),
        ("no-such-command", 127),
        ("if", 2),
        ("exit", 0),
        ("set -e; false; true", 1),
        ("exec sh -c 'exit 5'", 5),
    ],
)
def test_whatever_ends_a_line_its_status_is_known(connection, line: str, status: int) -> None:
    result = run(connection, line, check=False)
    assert result.returncode == status or (line == "if" and result.returncode > 0)


def test_a_list_is_an_argv(connection) -> None:
    result = run(connection, ["printf", "<%s>", *HOSTILE])
    assert result.stdout == "".join(f"<{word}>" for word in HOSTILE)


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("echo $((6 * 7)) | tr 4 5", "52\n"),
        ("echo 'a  b' \"c'd\"", "a  b c'd\n"),
        ("for i in 1 2\ndo echo $i\ndone", "1\n2\n"),
        ("cat <<EOF\nhere\nEOF", "here\n"),
        ("echo a # comment", "a\n"),
        ("false || echo b &&\necho c", "b\nc\n"),
    ],
)
def test_a_text_is_a_line_for_the_shell(connection, line: str, out: str) -> None:
    assert run(connection, line).stdout == out


@pytest.mark.parametrize("command", ["", []])
def test_an_empty_command_is_refused(connection, command) -> None:
    with pytest.raises(ValueError, match="an empty command"):
        run(connection, command)


@pytest.mark.parametrize("value", HOSTILE)
def test_environment_and_directory_are_quoted(connection, guest, value: str) -> None:
    result = run(connection, 'printf %s "$VALUE"', env={"VALUE": value})
    assert result.stdout == value
    name = value.strip().replace("/", "") or "x"
    (guest.root / name).mkdir()
    assert run(connection, "pwd", cwd=name).stdout == f"{guest.root}/{name}\n"


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A;id", "ü", "A\n"])
def test_names_of_variables_are_checked(connection, name: str) -> None:
    with pytest.raises(ValueError, match="is not a name for an environment variable"):
        run(connection, "true", env={name: "x"})


def test_a_directory_that_is_not_there(connection) -> None:
    result = run(connection, "echo ran", cwd="no-such-directory", check=False)
    assert (result.returncode, result.stdout) == (126, "")
    assert "no-such-directory" in result.stderr


@pytest.mark.parametrize("user", ["root", "bob"])
def test_another_user_by_way_of_sudo(connection, user: str) -> None:
    result = run(connection, ["sh", "-c", 'echo "$AS:$0:$X"', "it's"], user=user, env={"X": "a b"})
    assert result.stdout == f"{user}:it's:a b\n"


def test_sudo_that_refuses_is_the_commands_failure(connection, tool) -> None:
    tool("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    result = run(connection, "echo ran", user="root", check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "sudo: a password is required\n"


@pytest.mark.parametrize("data", ["text ü\n", b"\x00\xff\n", "", b""])
def test_input(connection, data: str | bytes) -> None:
    expected = data.encode() if isinstance(data, str) else data
    assert run(connection, "cat", input=data).stdout_bytes == expected


def test_no_input_is_an_empty_one(connection) -> None:
    assert run(connection, "cat; echo end").stdout == "end\n"


def test_input_that_is_not_read_is_no_failure(connection) -> None:
    assert run(connection, "echo done", input=b"x" * 8_000_000).stdout == "done\n"


def test_large_outputs_and_input_at_once_do_not_block(connection) -> None:
    data = b"0123456789abcdef" * 65536
    result = run(connection, "tee /dev/stderr", input=data)
    assert result.stdout_bytes == result.stderr_bytes == data


def test_undecodable_output(connection) -> None:
    result = run(connection, r"printf '\377ok'; printf '\376' >&2")
    assert (result.stdout, result.stderr) == ("\ufffdok", "\ufffd")
    assert result.stdout_bytes == b"\xffok"


def test_output_as_it_comes(connection, guest) -> None:
    """The command waits for us to have seen its first line."""
    seen: list[tuple[str, bytes]] = []

    def on_output(name: str, data: bytes) -> None:
        seen.append((name, data))
        if data == b"first\n":
            (guest.root / "seen").touch()

    wait = "until [ -e seen ]; do sleep 0.01; done"
    result = run(connection, f"echo first; {wait}; echo err >&2; echo last", on_output=on_output)
    assert (result.stdout, result.stderr) == ("first\nlast\n", "err\n")
    assert sorted(seen) == [("stderr", b"err\n"), ("stdout", b"first\n"), ("stdout", b"last\n")]


@pytest.mark.skipif(sys.platform != "linux", reason="the guest is a Linux: /proc tells sessions")
class TestTimeout:
    def test_has_the_output_until_then(self, connection) -> None:
        with pytest.raises(CommandTimeoutError, match="did not end within 0.5 s") as caught:
            run(connection, "echo out; echo err >&2; sleep 60", timeout=0.5)
        assert (caught.value.stdout, caught.value.stderr) == ("out\n", "err\n")
        assert "ran: echo out" in str(caught.value)
        assert "raise timeout=" in str(caught.value)

    @pytest.mark.parametrize(
        "line",
        [
            "sleep 60 & echo $! $$; wait",
            "trap '' TERM INT HUP; sleep 60 & echo $! $$; while :; do sleep 60; done",
            "(sleep 60 & echo $!; sleep 60) & echo $$; wait",
        ],
    )
    def test_ends_everything_in_the_session(self, connection, gone, line: str) -> None:
        with pytest.raises(CommandTimeoutError) as caught:
            run(connection, line, timeout=0.8)
        pids = [int(word) for word in caught.value.stdout.split()]
        assert len(pids) == 2
        assert all(map(gone, pids))

    def test_leaves_other_commands_and_the_connection_alone(self, connection) -> None:
        results: list[CommandResult] = []
        other = threading.Thread(
            target=lambda: results.append(run(connection, "sleep 1; echo other"))
        )
        other.start()
        with pytest.raises(CommandTimeoutError):
            run(connection, "sleep 60", timeout=0.3)
        other.join()
        assert [result.stdout for result in results] == ["other\n"]
        assert run(connection, "echo after").stdout == "after\n"

    def test_says_so_when_the_command_may_still_run(self, connection, guest) -> None:
        def refuse_to_kill(command: str, channel) -> bool:
            if "kill -KILL" in command:
                guest.drop_connections()
                return True
            return False

        guest.misbehave = refuse_to_kill
        with pytest.raises(CommandTimeoutError, match="may still run in the guest") as caught:
            run(connection, "echo $$; exec sleep 60", timeout=0.3)
        psutil.Process(int(caught.value.stdout)).kill()


def test_a_connection_that_breaks_in_the_middle(connection, guest) -> None:
    def break_off(name: str, data: bytes) -> None:
        guest.drop_connections()

    with pytest.raises(ConnectionLostError):
        run(connection, "echo begun; sleep 3", on_output=break_off)


def test_a_server_that_tells_no_status_means_a_signal(connection, guest) -> None:
    def closes(command: str, channel) -> bool:
        channel.sendall(b"partial")
        channel.close()
        return True

    guest.answer = closes
    result = run(connection, "echo $$", check=False)
    assert (result.returncode, result.stdout) == (137, "partial")


def test_the_sign_may_come_in_pieces_and_after_noise(connection, guest) -> None:
    def dribble(command: str, channel) -> bool:
        if command.startswith(": pytest-lima"):
            return False
        mark = re.search("pytest-lima-([0-9a-f]{16})=", command)[1]
        for piece in ("motd\n", "hint pytest-lima-", mark[:5], f"{mark[5:]}=12", "34:", ":\nerr",
                      "or\n"):  # fmt: skip
            channel.sendall(piece.encode())
            channel.sendall_stderr(piece.encode())
        channel.send_exit_status(0)
        channel.close()
        return True

    guest.misbehave = dribble
    seen: list[tuple[str, bytes]] = []
    result = run(connection, "echo $$", on_output=lambda *piece: seen.append(piece))
    assert result.stdout == result.stderr == "error\n"
    for name in ("stdout", "stderr"):
        assert b"".join(data for one, data in seen if one == name) == b"error\n"


def test_results_are_plain_values() -> None:
    result = CommandResult("true", 0, b"out", b"err", 0.5)
    assert pickle.loads(pickle.dumps(result)) == result
    assert repr(result) == "CommandResult(command='true', returncode=0, duration=0.5)"


def test_what_startup_files_print_is_no_output_of_a_command_s(connection, guest, tool) -> None:
    guest.shell = str(tool("noisy", 'echo motd; exec /bin/sh "$@"'))
    told: list[tuple[str, bytes]] = []
    result = run(connection, "cat; echo out; echo err >&2", input="in\n",
                 on_output=lambda name, data: told.append((name, data)))  # fmt: skip
    assert (result.stdout, result.stderr) == ("in\nout\n", "err\n")
    assert b"".join(data for name, data in told if name == "stdout") == b"in\nout\n"
    assert run(connection, "id -un", user="ann").stdout.count("\n") == 1


def test_no_time_limit_is_one_too(connection) -> None:
    assert run(connection, "echo out", timeout=float("inf")).stdout == "out\n"
    assert run(connection, "cat", input="fed", timeout=float("inf")).stdout == "fed"
