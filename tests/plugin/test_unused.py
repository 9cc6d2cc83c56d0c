"""Installed and not used: the plugin costs nothing and shows nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Tells at the end what a run has loaded and started; Python runs it before anything else.
WATCH = """
import atexit, os, sys
os.geteuid = lambda: 1001
HEAVY = "paramiko yaml tenacity filelock psutil platformdirs h2 http ssl pytest_lima.lima.limactl"
started = []
sys.addaudithook(lambda event, args: started.append(event) if event in (
    "subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system",
    "socket.connect") else None)
atexit.register(lambda: print("loaded", [name for name in HEAVY.split() if name in sys.modules],
                              "started", started))
"""
NOTHING = "loaded [] started []"
PLAIN = "def test_plain(): pass\n"
MARKED = "import pytest\n@pytest.mark.lima(cpus=2)\ndef test_marked(lima): pass\n"


@pytest.mark.parametrize(
    ("args", "last"),
    [
        ("", "1 passed"),
        ("-m 'not lima' .", "1 passed, 1 deselected"),
        ("--collect-only .", "2 tests collected"),
        ("--help", ""),
        ("--markers", ""),
        ("--fixtures", "no tests ran"),
        ("--fixtures-per-test .", "no tests ran"),
        ("--setup-plan .", "no tests ran"),
    ],
)
def test_nothing_is_loaded_started_or_written(pytester, fake_lima, args, last):
    pytester.makepyfile(sitecustomize=WATCH, test_plain=PLAIN, test_marked=MARKED)
    before = sorted(fake_lima.dir.rglob("*")), sorted(pytester.path.rglob("*"))
    # With no other plugin, so that what is loaded is ours.
    path = os.pathsep.join([str(pytester.path), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1",
           "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # fmt: skip
    argv = f'exec "$0" -m pytest -p lima -p no:cacheprovider {args or "test_plain.py"}'
    done = subprocess.run(["sh", "-c", argv, sys.executable], env=env, check=False,
                          capture_output=True, text=True)  # fmt: skip
    print(done.stdout, done.stderr)
    *lines, told = done.stdout.splitlines()
    assert (done.returncode, done.stderr, told) == (0, "", NOTHING)
    assert last in lines[-1]
    assert not [line for line in lines if line.startswith("lima: ")]
    if args in ("", "-m 'not lima' ."):
        # Not the line with the folder, which may have the word in its path.
        told = [line for line in lines if not line.startswith("rootdir: ")]
        assert [line for line in told if "lima" in line] == [lines[3]]
        assert lines[3].startswith("plugins: lima-")
    assert (sorted(fake_lima.dir.rglob("*")), sorted(pytester.path.rglob("*"))) == before


def test_it_can_be_taken_away(pytester):
    pytester.makepyfile("def test_it(lima): pass")
    for args in (["--fixtures"], ["--markers"], ["--help"]):
        pytester.runpytest("-p", "no:lima", *args).stdout.no_fnmatch_line("*lima[-_]*")
    assert pytester.runpytest("-p", "no:lima", "--lima-cpus=2").ret == pytest.ExitCode.USAGE_ERROR
    pytester.runpytest("-p", "no:lima").stdout.fnmatch_lines(["*fixture 'lima' not found"])


def test_help_names_what_there_is(pytester):
    pytester.runpytest("--help").stdout.fnmatch_lines([
        "a real Linux VM for tests, through Lima:",
        "  --lima-vmtype=auto|vz|qemu", "  --lima-keep=never|on-failure|always",
        "  lima_template (linelist):*",
    ])  # fmt: skip
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.lima(*cpus=None*): *"])
    pytester.runpytest("--fixtures").stdout.fnmatch_lines([
        "lima_factory [[]session scope[]] *", "    Starts further VMs: *",
        "lima_docker_host [[]session scope[]] *",
    ])  # fmt: skip
