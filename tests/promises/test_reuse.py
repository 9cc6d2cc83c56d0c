"""Promises 11 to 14: between runs."""

from __future__ import annotations

import json
import os
import shutil
import signal

import psutil
import pytest

TEST = """
def test_it(lima, lima_docker_host):
    print("VM", lima.name)
    assert lima.run("touch /etc/seen && echo hello").stdout == "hello\\n"
"""


def record(fake_lima) -> dict[str, object]:
    [file] = fake_lima.dir.rglob("pytest-lima/instances/*.json")
    return json.loads(file.read_text())


def prune(fake_lima) -> None:
    from pytest_lima.cli import main

    assert main(["prune", "--all", "--yes"]) == 0
    fake_lima.assert_clean()


def test_11_runs_one_after_another_share_a_vm(pytester, fake_lima):
    for package in ("api", "web", "db"):
        folder = pytester.mkdir(package)
        (folder / "test_it.py").write_text(TEST)
        result = pytester.runpytest_subprocess(str(folder), "--lima-reuse", "-rP")
        result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["lima pl-*: joined in *"])
    assert len(fake_lima.calls("create")) == 1
    assert record(fake_lima)["leases"] == []
    assert record(fake_lima)["idle"] == 1800.0
    prune(fake_lima)


def test_11_runs_at_the_same_time_share_it_too(pytester, fake_lima, start):
    fake_lima.scenario("slow", boot_seconds=1)
    pytester.makepyfile("import time\ndef test_it(lima):\n    time.sleep(2)\n")
    runs = [start("--lima-reuse", "-v") for _ in range(3)]
    assert [run.ends() for run in runs] == [0, 0, 0]
    assert len(fake_lima.calls("create")) == 1
    assert sum("joined in" in run.output for run in runs) == 2
    assert any("waiting for process" in run.output for run in runs)
    prune(fake_lima)


def test_11_the_last_run_may_end_it(pytester, fake_lima):
    pytester.makepyfile(TEST)
    pytester.runpytest_subprocess("--lima-reuse").assert_outcomes(passed=1)
    assert len(fake_lima.instances()) == 1
    result = pytester.runpytest_subprocess("--lima-reuse", "--lima-keep=never")
    result.assert_outcomes(passed=1)
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


DOCKER_FIRST = """
import socket, threading, time

def test_docker(lima_docker_host):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(lima_docker_host.removeprefix("unix://"))
        sock.sendall(b"GET /_ping HTTP/1.1\\r\\nHost: docker\\r\\nConnection: close\\r\\n\\r\\n")
        assert sock.recv(64).startswith(b"HTTP/1.1 200 OK")

def test_command(lima):
    held = lima.dir / "logins-held"
    if held.exists():
        threading.Timer(1, held.unlink).start()
    assert lima.run("echo hello").stdout == "hello\\n"
    assert not held.exists()
"""


def test_11_docker_is_there_before_the_guest_lets_anybody_in(pytester, fake_lima):
    pytester.makepyfile(DOCKER_FIRST)
    pytester.runpytest_subprocess("--lima-reuse").assert_outcomes(passed=2)
    [name] = fake_lima.instances()
    held = fake_lima.hold_logins(name)
    # Nothing of a test without a command waits for a login, the end of the run included.
    result = pytester.runpytest_subprocess("--lima-reuse", "-k", "test_docker", timeout=15)
    result.assert_outcomes(passed=1, deselected=1)
    assert held.exists()
    result = pytester.runpytest_subprocess("--lima-reuse", timeout=15)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"lima {name}: joined in *"])
    assert len(fake_lima.calls("create")) == 1
    prune(fake_lima)


def test_13_a_login_that_fails_is_told_to_the_first_command_and_mended_by_the_next_run(
    pytester, fake_lima
):
    pytester.makepyfile(DOCKER_FIRST)
    pytester.runpytest_subprocess("--lima-reuse").assert_outcomes(passed=2)
    [name] = fake_lima.instances()
    known = fake_lima.home / name / "pl" / "known_hosts"
    host, kind, _ = known.read_text().splitlines()[0].split()[:3]
    known.write_text(f"{host} {kind} AAAA\n")
    result = pytester.runpytest_subprocess("--lima-reuse")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*HostKeyError: another machine answers in place of the guest"])
    assert fake_lima.instances() == [name]
    result = pytester.runpytest_subprocess("--lima-reuse")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"lima warning: {name} is replaced: another machine answers*"])
    assert len(fake_lima.calls("create")) == 2
    prune(fake_lima)


def test_11_without_reuse_nothing_is_joined(pytester, fake_lima):
    pytester.makepyfile(TEST)
    pytester.runpytest_subprocess("--lima-keep=always").assert_outcomes(passed=1)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert len(fake_lima.calls("create")) == 2
    pytester.runpytest_subprocess("--lima-reuse").assert_outcomes(passed=1)
    assert len(fake_lima.calls("create")) == 2
    prune(fake_lima)


def test_12_another_spec_is_not_taken_and_says_why(pytester, fake_lima):
    pytester.makepyfile(TEST)
    pytester.runpytest_subprocess("--lima-reuse", "--lima-cpus=2").assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess("--lima-reuse", "--lima-cpus=3")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["lima warning: pl-* is not reused: cpus is 2, asked for is 3"])
    assert len(fake_lima.calls("create")) == 2
    prune(fake_lima)


@pytest.mark.parametrize("how", ["stopped", "vm", "agent", "state", "folder"])
def test_13_one_that_is_not_well_is_mended_or_replaced(pytester, fake_lima, how):
    pytester.makepyfile(TEST)
    stop = ["--lima-teardown=stop"] if how == "stopped" else []
    pytester.runpytest_subprocess("--lima-reuse", *stop).assert_outcomes(passed=1)
    [name] = fake_lima.instances()
    folder = fake_lima.home / name
    if how == "vm":
        fake_lima.crash(name)
    elif how == "agent":
        os.kill(int((folder / "ha.pid").read_text()), signal.SIGKILL)
    elif how == "state":
        (folder / "pl" / "ready.json").write_text('{"version": ')
    elif how == "folder":
        fake_lima.crash(name)
        shutil.rmtree(folder)
    result = pytester.runpytest_subprocess("--lima-reuse")
    result.assert_outcomes(passed=1)
    # Started again as it was where that is possible, else made anew.
    again = how in ("stopped", "vm", "agent")
    assert len(fake_lima.calls("create")) == (1 if again else 2)
    assert len(fake_lima.instances()) == 1
    prune(fake_lima)


def test_14_an_idle_one_ends_by_itself(pytester, fake_lima, soon):
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("--lima-reuse", "--lima-idle=2")
    result.assert_outcomes(passed=1)
    assert len(fake_lima.instances()) == 1
    soon()


def test_14_one_process_waits_for_all_of_them(pytester, fake_lima, soon):
    pytester.makepyfile(TEST)
    for _ in range(3):
        result = pytester.runpytest_subprocess("--lima-reuse", "--lima-idle=600")
        result.assert_outcomes(passed=1)

    def waiting() -> int:
        found = 0
        for one in psutil.process_iter(["cmdline", "environ"]):
            state = (one.info["environ"] or {}).get("XDG_STATE_HOME")
            argv = one.info["cmdline"] or []
            found += state == fake_lima.env["XDG_STATE_HOME"] and "reaper" in " ".join(argv)
        return found

    fake_lima.wait_until(lambda: waiting() == 1, 10)
    prune(fake_lima)


def test_14_one_in_use_is_not_idle(pytester, fake_lima, start, soon):
    pytester.makepyfile(TEST)
    pytester.runpytest_subprocess("--lima-reuse", "--lima-idle=8").assert_outcomes(passed=1)
    pytester.makepyfile(
        "import time\ndef test_it(lima):\n    time.sleep(10)\n    lima.run('true')\n"
    )
    result = pytester.runpytest_subprocess("--lima-reuse", "--lima-idle=8", "--lima-engine=docker")
    result.assert_outcomes(passed=1)
    assert len(fake_lima.calls("create")) == 1
    soon()
