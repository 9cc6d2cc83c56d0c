"""Children of a process that isn't as processes mostly are: each in a Python of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Each is a program's beginning, after `import signal, threading`.
WORLDS = {
    "ordinary": "",
    "nohup": "ignore(signal.SIGHUP, signal.SIGINT)",
    "a CI runner": "ignore(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGQUIT)",
    "no SIGCHLD": "ignore(signal.SIGCHLD)",
    "all ignored": "ignore(*(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])",
    "somebody collects": """
import os
def collect(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
signal.signal(signal.SIGCHLD, collect)
""",
}
BEGIN = """
import json, os, signal, sys, threading
import psutil
from pathlib import Path
from pytest_lima.lima import process

def ignore(*numbers):
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)

ENV = {"PATH": "/usr/bin:/bin"}

def sh(script, timeout=20.0):
    return process.run(["sh", "-c", script], env=ENV, timeout=timeout)

def show(**found):
    print(json.dumps(found))
"""


def told(world: str, program: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", f"{BEGIN}\n{WORLDS[world]}\n{program}"],
        capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 15, 17)],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_exit_status_is_the_child_s(world: str) -> None:
    found = told(world, """
killed, late = sh("kill -KILL $$"), sh("sleep 60", 0.5)
show(statuses=[sh("exit 0").returncode, sh("exit 3").returncode, killed.returncode],
     late=late.returncode, said=sh("echo out; echo err >&2").stdout)
""")  # fmt: skip
    assert found == {"statuses": [0, 3, -9], "late": None, "said": "out\n"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_begins_with_all_defaults_and_nothing_blocked(world: str, tmp_path: Path) -> None:
    found = told(
        world,
        f"""
argv = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
by_run = process.run(argv, env=ENV, timeout=20).stdout
with open({str(tmp_path / "log")!r}, "wb") as log:
    child = process.Child(argv, env=ENV, log=log)
while child.wait(20) is None: pass
one = process.Companion(argv, env=ENV)
one.says(b"SigIgn", 20)
one.release()
show(all=[by_run, Path({str(tmp_path / "log")!r}).read_text(), one.heard.decode()])
""",
    )
    masks = [line.split()[1] for text in found["all"] for line in text.splitlines()]  # type: ignore[attr-defined]
    assert len(masks) == 6
    assert {int(mask, 16) for mask in masks} == {0}


def test_the_environment_is_the_one_given(world: str) -> None:
    found = told(
        world,
        """
names = {line.partition("=")[0] for line in sh("env").stdout.splitlines()}
show(names=sorted(names - {"PWD", "OLDPWD", "SHLVL", "_"}))
""",
    )
    assert found == {"names": ["PATH"]}


def test_what_can_not_be_started_is_an_error(world: str) -> None:
    found = told(
        world,
        """
errors = []
for name in ("no-such-thing", "/", "/etc/passwd"):
    try:
        process.run([name], env=ENV, timeout=10)
    except OSError as error:
        errors.append(f"{type(error).__name__} {error.filename}")
show(errors=errors, children=len(psutil.Process().children()))
""",
    )
    assert found == {
        "errors": [
            "FileNotFoundError no-such-thing",
            "PermissionError /",
            "PermissionError /etc/passwd",
        ],
        "children": 0,
    }


def test_the_whole_group_is_ended(world: str, tmp_path: Path) -> None:
    found = told(
        world,
        f"""
process._TERM_GRACE = 1.0
pids = Path({str(tmp_path / "pids")!r})
with open(os.devnull, "wb") as log:
    argv = ["sh", "-c", f"sleep 60 & echo $! $$ >{{pids}}; wait"]
    child = process.Child(argv, env=ENV, log=log)
while not pids.exists() or not pids.read_text().endswith("\\n"):
    assert child.poll() is None
child.stop()
import psutil, time
def there(pid):
    try: return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return False
deadline = time.monotonic() + 10
left = [int(pid) for pid in pids.read_text().split()]
while left and time.monotonic() < deadline:
    left = [pid for pid in left if there(pid)]
show(left=left, status=child.poll())
""",
    )
    assert found == {"left": [], "status": -signal.SIGTERM}


def test_what_this_process_ignores_stays_ignored() -> None:
    """A user's nohup is the user's: only children begin anew."""
    found = told(
        "nohup",
        """
sh("true")
show(still=[signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGHUP, signal.SIGINT)])
""",
    )
    assert found == {"still": [True, True]}
