"""Promises 15 to 19: what isn't ours is left alone, what is ours goes even when Lima can't."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pytest_lima import lima_instance
from pytest_lima.lima import host, identity
from pytest_lima.ownership import removal

PASSES = "def test_it(lima): pass\n"


@pytest.fixture
def stranger():
    """A process that has nothing to do with us, such as one with a pid used again."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("pidfile", ["ha.pid", "qemu.pid"])
def test_15_a_recycled_pid_is_never_signalled(pytester, fake_lima, stranger, pidfile):
    pytester.makepyfile(f"""
        def test_it(lima):
            (lima.dir / {pidfile!r}).write_text("{stranger.pid}\\n")
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    assert stranger.poll() is None
    result.stdout.fnmatch_lines(
        [f"*lima warning: *{pidfile} named process {stranger.pid}, * was left alone: *"]
    )
    fake_lima.assert_clean()


def test_15_a_dead_owner_s_pid_that_is_used_again_keeps_nothing(pytester, fake_lima, stranger):
    """The record's owner has the pid of a living process, but another start."""
    with lima_instance() as vm:
        [file] = fake_lima.dir.rglob("pytest-lima/instances/*.json")
        record = json.loads(file.read_text())
    orphan = {**record, "leases": [], "state": "ready"}
    for role in ("owner", "starter"):
        orphan[role] = {**orphan[role], "pid": stranger.pid}
    file.write_text(json.dumps(orphan))
    (fake_lima.home / vm.name).mkdir()
    pytester.makepyfile(PASSES)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert stranger.poll() is None
    fake_lima.assert_clean()


def test_16_foreign_instances_are_never_touched(pytester, fake_lima, start, soon):
    """In the same LIMA_HOME, with names like ours, one of them running."""
    limactl = host.caller(str(fake_lima.limactl), str(fake_lima.home), os.environ)
    fake_lima.home.mkdir(exist_ok=True)
    for name in ("pl-00000000", "pl-mine"):
        assert limactl.run("create", f"--name={name}", fake_lima.template()).ok
    assert limactl.run("start", "--timeout=20s", "pl-mine").ok
    pytester.makepyfile("import os\ndef test_it(lima): os._exit(1)")
    start().ends()
    pytester.makepyfile(PASSES)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    from pytest_lima.cli import main

    assert main(["prune"]) == 0
    assert main(["prune", "--all", "--yes"]) == 0
    assert fake_lima.instances() == ["pl-00000000", "pl-mine"]
    assert '"status":"Running"' in limactl.run("list", "--format=json", "pl-mine").stdout
    for name in fake_lima.instances():
        limactl.delete(name)
    fake_lima.assert_clean()


def test_16_command_lines_are_taken_word_for_word(tmp_path):
    folder = tmp_path / "pl-1234"
    mine = [
        ["limactl", "hostagent", "--pidfile", f"{folder}/ha.pid", "pl-1234"],
        ["qemu-system-x86_64", "-m", "1", "-pidfile", f"{folder}/qemu.pid"],
        ["ssh", "-N", f'-oUserKnownHostsFile="{folder}/pl/known_hosts"'],
        [f"ssh: {folder}/ssh.sock [mux]"],
        ["limactl", "create", "--name=pl-1234", "x.yaml"],
        ["limactl", "start", "--timeout=9s", "pl-1234"],
    ]
    assert all(removal.belongs(argv, folder) for argv in mine)
    others = [
        ["tail", "-f", f"{folder}/serial.log"],
        ["limactl", "shell", "pl-1234"],
        ["vim", f"{folder}/lima.yaml"],
        ["limactl", "hostagent", "--pidfile", f"{folder}-db/ha.pid", "pl-1234-db"],
        ["qemu-system-x86_64", "-pidfile", f"{folder}5/qemu.pid"],
        ["limactl", "start", "pl-12345"],
        ["limactl", "create", "--name=pl-1234-db"],
        ["python", "start", "create", "pl-123"],
    ]
    assert not any(removal.belongs(argv, folder) for argv in others)


@pytest.mark.parametrize("broken", ["stale-pids", "plain-file-socket", "no-yaml", "protected"])
def test_17_broken_instances_are_removed_all_the_same(fake_lima, broken):
    with lima_instance() as vm:
        folder = fake_lima.home / vm.name
        if broken == "stale-pids":
            fake_lima.crash(vm.name)
            (folder / "ha.pid").write_text("4194304\n")
            (folder / "qemu.pid").write_text("nonsense")
        elif broken == "plain-file-socket":
            (folder / "ha.sock").unlink()
            (folder / "ha.sock").write_text("")
        elif broken == "no-yaml":
            (folder / "lima.yaml").unlink()
        else:
            (folder / "protected").touch()
    fake_lima.assert_clean()


def test_18_what_limactl_can_not_delete_goes_with_a_warning(pytester, fake_lima):
    template = fake_lima.template("delete-fails")
    pytester.makepyfile(PASSES)
    result = pytester.runpytest_subprocess(f"--lima-template={template}")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*lima warning: pl-* could not be deleted by limactl (*denied*)*"])
    fake_lima.assert_clean()


def test_18_one_that_stays_is_told_and_does_not_keep_the_others(pytester, fake_lima, soon):
    pytester.makeconftest("""
        import shutil

        real = shutil.rmtree

        def refuse(path, *args, **kwargs):
            if str(path).endswith("-db"):
                raise PermissionError(13, "Permission denied", str(path))
            real(path, *args, **kwargs)

        shutil.rmtree = refuse
    """)
    template = fake_lima.template("delete-fails")
    pytester.makepyfile(f"""
        def test_it(lima, lima_factory):
            lima_factory(name="db", template={template!r})
            lima_factory(name="web")
    """)
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    [name] = {call.argv[-1] for call in fake_lima.calls("delete") if call.argv[-1].endswith("-db")}
    result.stdout.fnmatch_lines([
        f"{name} could not be deleted", "  ran: *", "  seen: *denied*", "  do: LIMA_HOME=*",
    ])  # fmt: skip
    soon()  # the reaper tries once more, and nothing is in its way


def test_19_a_hanging_limactl_is_ended(pytester, fake_lima):
    fake_lima.scenario("hang", hang="create")
    pytester.makepyfile(PASSES)
    result = pytester.runpytest_subprocess("--lima-timeout=2")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["StartError: limactl could not create pl-*", "*did not end in time*"]
    )
    fake_lima.assert_clean()


def test_19_a_stubborn_one_too(pytester, fake_lima):
    fake_lima.scenario("hang", hang="start", stubborn=True)
    pytester.makepyfile(PASSES)
    result = pytester.runpytest_subprocess("--lima-timeout=3")
    result.assert_outcomes(errors=1)
    fake_lima.assert_clean()


CLOCK_JUMPS = """
    import itertools, time
    real, jump = time.time, itertools.cycle([0, 3600, -3600])
    time.time = lambda: real() + next(jump)
"""


def test_37_a_host_clock_that_jumps_ends_nothing(pytester, fake_lima):
    """At each look at it, by an hour; the waits and who owns what go by other clocks."""
    pytester.makeconftest(CLOCK_JUMPS)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(lima, number):
            assert lima.run("echo hello", timeout=30).ok
    """)
    result = pytester.runpytest_subprocess("-n2")
    result.assert_outcomes(passed=4)
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_15_ids_survive_a_change_of_the_clock():
    """On Linux they count from the boot, which no clock is asked for."""
    mine = identity.this_process()
    assert mine.alive()
    if os.uname().sysname == "Linux":
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        assert mine.started == ticks
    assert psutil.Process().create_time() != mine.started or sys.platform == "darwin"
