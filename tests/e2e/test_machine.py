"""What a test does with a VM: commands and files."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from pytest_lima import CommandError, CommandTimeoutError, Instance

pytestmark = pytest.mark.lima


def test_systemd_runs_and_cloud_init_is_done(lima: Instance) -> None:
    assert lima.run("cat /proc/1/comm").stdout == "systemd\n"
    assert lima.run("systemctl is-active ssh || systemctl is-active sshd").stdout == "active\n"
    status = lima.cloud_init_status()
    assert status["status"] == "done"
    assert status["errors"] == []


def test_facts(lima: Instance) -> None:
    assert lima.status == "Running"
    assert lima.name.startswith("pl-")
    assert lima.run("uname -m").stdout.strip() == lima.arch
    assert int(lima.run("nproc").stdout) == lima.cpus
    assert lima.run("id -un").stdout.strip() == lima.user
    total = int(lima.run("awk '/MemTotal/ { print $2 }' /proc/meminfo").stdout) // 1024
    assert 0.8 * lima.memory < total <= lima.memory
    assert "BEGIN SSH HOST KEY KEYS" in lima.console_log()
    assert lima.limactl("list", "--quiet", lima.name).stdout.strip() == lima.name


def test_clock_is_the_hosts(lima: Instance) -> None:
    before = time.time()
    now = float(lima.run("date +%s.%N").stdout)
    assert before - 1.2 < now < time.time() + 1.2  # a busy machine delays the answer


def test_nothing_of_the_host_is_in_the_guest(lima: Instance) -> None:
    types = lima.run("findmnt -rno FSTYPE").stdout.split()
    assert not {"9p", "virtiofs", "fuse.sshfs"} & set(types)
    assert "SSH_AUTH_SOCK" not in lima.run("env").stdout


def test_run_gives_status_and_both_outputs(lima: Instance) -> None:
    result = lima.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert not result.ok
    with pytest.raises(CommandError, match="returned 3") as caught:
        lima.run("echo why >&2; exit 3")
    assert "why" in str(caught.value)


def test_run_takes_a_line_or_an_argv(lima: Instance) -> None:
    assert lima.run("echo $((6 * 7)) | tr 4 5").stdout == "52\n"
    hostile = ["a b", "$HOME", "'", '"', "\\", ";", "ü", "-n", ""]
    assert lima.run(["printf", "%s\\0", *hostile]).stdout.split("\0")[:-1] == hostile


def test_run_with_input_environment_folder_and_user(lima: Instance) -> None:
    assert lima.run("cat", input="fed\n").stdout == "fed\n"
    assert lima.run("cat").stdout == ""
    assert (
        lima.run("echo $A; pwd", env={"A": "x y'z"}, cwd="/usr/lib").stdout == "x y'z\n/usr/lib\n"
    )
    assert lima.run("id -u; echo $A", user="root", env={"A": "1"}).stdout == "0\n1\n"


def test_output_is_told_as_it_comes(lima: Instance) -> None:
    heard: list[tuple[str, bytes]] = []
    lima.run("echo a; echo b >&2", on_output=lambda stream, data: heard.append((stream, data)))
    assert sorted(heard) == [("stderr", b"b\n"), ("stdout", b"a\n")]


@pytest.mark.parametrize("user", [None, "root"])
def test_a_timeout_kills_all_that_the_command_started(lima: Instance, user: str | None) -> None:
    with pytest.raises(CommandTimeoutError, match="within 2 s") as caught:
        lima.run("echo begun; sleep 98765 & sleep 98765", timeout=2, user=user)
    assert caught.value.stdout == "begun\n"
    # The brackets keep pgrep from finding the shell that it runs in.
    assert lima.run("pgrep -f '[s]leep 98765'", check=False).stdout == ""


def test_twenty_megabytes_of_output(lima: Instance) -> None:
    command = "head -c 20000000 /dev/urandom >big; cat big; sha256sum big >&2; rm big"
    result = lima.run(command, timeout=120)
    assert len(result.stdout_bytes) == 20_000_000
    assert sha256(result.stdout_bytes).hexdigest() in result.stderr


def test_eight_threads_at_once(lima: Instance) -> None:
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: lima.run(f"sleep 0.2; echo {n}").stdout, range(24)))
    assert results == [f"{n}\n" for n in range(24)]


def test_nothing_of_a_command_is_left_for_the_next(lima: Instance) -> None:
    probe = "pwd; umask; ulimit -n; trap; set +o; echo $A; ls /proc/self/fd"
    before = lima.run(probe).stdout
    for line in (
        "cd /; export A=1; umask 077; ulimit -n 99; trap 'echo x' EXIT; set -eu",
        "exec >/dev/null",
        "exec 3>&1 true",
        "exit 3",
        "kill -9 $$",
        "kill -9 0",
    ):
        lima.run(line, check=False)
        assert lima.run(probe).stdout == before
    assert len({lima.run("echo $$").stdout for _ in range(3)}) == 3


def test_a_background_process_has_outputs_of_its_own_or_is_waited_for(lima: Instance) -> None:
    result = lima.run("setsid sh -c 'sleep 1; echo late; echo err >&2' & echo soon")
    assert (result.stdout, result.stderr) == ("soon\nlate\n", "err\n")
    pid = lima.run("sleep 300 >/dev/null 2>&1 & echo $!").stdout.strip()
    with pytest.raises(CommandTimeoutError):
        lima.run("sleep 300", timeout=1)
    lima.run(["kill", pid])  # it was another command's, and still there


def test_files_both_ways(lima: Instance, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    lima.write_bytes("blob", data)
    assert lima.read_bytes("blob") == data
    lima.write_text("/tmp/text", "größe\n")
    assert lima.read_text("/tmp/text") == "größe\n"

    local = tmp_path / "script"
    local.write_text("#!/bin/sh\necho ran\n")
    local.chmod(0o755)
    lima.put(local, "/tmp/script")
    assert lima.run("/tmp/script").stdout == "ran\n"
    lima.get("blob", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_folders_both_ways(lima: Instance, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub dir" / "empty").mkdir(parents=True)
    for number in range(200):
        (tree / "sub dir" / f"{number}.txt").write_text(str(number))
    lima.put(tree, "/tmp/tree")
    assert lima.run("find /tmp/tree -type f | wc -l").stdout.strip() == "200"
    lima.run("ln -s /etc/passwd /tmp/tree/link")
    lima.get("/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back" / "sub dir" / "199.txt").read_text() == "199"
    assert (tmp_path / "back" / "sub dir" / "empty").is_dir()
    assert not (tmp_path / "back" / "link").exists()


def test_ssh_with_our_configuration(lima: Instance) -> None:
    argv = ["ssh", "-F", str(lima.ssh_config), f"lima-{lima.name}", "hostname"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == lima.run("hostname").stdout
