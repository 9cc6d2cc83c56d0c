"""pytest-xdist over the fake: who shares which VM, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytest.importorskip("xdist")

TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(12))
def test_it(lima, number, record_property):
    print("VM", lima.name, os.environ["PYTEST_XDIST_WORKER"])
    assert lima.run("echo hello").stdout == "hello\\n"
"""


def names(result: pytest.RunResult) -> set[str]:
    return set(re.findall(r"VM (pl-\w+) gw", result.stdout.str()))


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadgroup", "worksteal"])
def test_05_all_workers_share_one_vm(pytester, fake_lima, dist):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n4", f"--dist={dist}", "-rP")
    result.assert_outcomes(passed=12)
    assert len(fake_lima.calls("create")) == 1
    assert len(names(result)) == 1
    fake_lima.assert_clean()


def test_06_each_worker_has_its_own(pytester, fake_lima):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n3", "-rP", "--lima-share=worker", "--lima-max-vms=3")
    result.assert_outcomes(passed=12)
    assert len(fake_lima.calls("create")) == 3
    fake_lima.assert_clean()


def test_06_workers_share_where_there_are_more_than_vms(pytester, fake_lima):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n4", "-rP", "--lima-share=worker", "--lima-max-vms=2")
    result.assert_outcomes(passed=12)
    assert len(fake_lima.calls("create")) == 2
    fake_lima.assert_clean()


def test_05_a_crashed_worker_s_replacement_joins(pytester, fake_lima):
    pytester.makepyfile("""
        import os
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_it(lima, number):
            print("VM", lima.name, os.environ["PYTEST_XDIST_WORKER"])
            assert lima.run("true").ok
            if number == 3:
                os.kill(os.getpid(), 9)
    """)
    result = pytester.runpytest_subprocess("-n2", "-rP")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (7, 1)
    assert len(fake_lima.calls("create")) == 1
    assert len(names(result)) == 1
    fake_lima.assert_clean()


def test_05_a_crashed_worker_s_replacement_joins_where_no_other_is_left(pytester, fake_lima):
    pytester.makepyfile("""
        import os, time
        from contextlib import suppress
        from pathlib import Path
        import psutil
        import pytest

        crashes, joined = Path("crashes"), Path("joined")

        @pytest.mark.parametrize("number", range(4))
        def test_it(lima, number):
            print("VM", lima.name, os.environ["PYTEST_XDIST_WORKER"])
            if number == 0:
                crashes.write_text(f"{os.getpid()}\\n")
                while not joined.exists():
                    time.sleep(0.02)
                os.kill(os.getpid(), 9)
            if number == 3:  # the other worker's last
                joined.touch()
                while not crashes.exists() or not crashes.read_text().endswith("\\n"):
                    time.sleep(0.02)
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(int(crashes.read_text()))
                    while process.status() != psutil.STATUS_ZOMBIE:
                        time.sleep(0.02)
    """)
    result = pytester.runpytest_subprocess("-n2", "-rP", "--timeout=20")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (3, 1)
    assert len(fake_lima.calls("create")) == 1
    assert len(names(result)) == 1
    fake_lima.assert_clean()


def test_05_a_worker_that_is_killed_while_it_starts_the_vm(pytester, fake_lima):
    """The others go on: one of them starts another."""
    fake_lima.scenario("slow", boot_seconds=2)
    pytester.makepyfile("""
        import os, signal, threading, time
        from pathlib import Path
        import pytest

        marker = Path(__file__).with_name("killed")

        @pytest.fixture(scope="session", autouse=True)
        def killer():
            def kill():
                for _ in range(1000):
                    time.sleep(0.02)
                    for log in Path(os.environ["PYTEST_LIMA_HOME"]).glob("*/ha.pid"):
                        record = Path(os.environ["XDG_STATE_HOME"],
                                      "pytest-lima/instances", log.parent.name + ".json")
                        if f'"pid": {os.getpid()}' in record.read_text().split("leases")[0]:
                            try:
                                marker.touch(exist_ok=False)
                            except FileExistsError:
                                return
                            os.kill(os.getpid(), signal.SIGKILL)
            threading.Thread(target=kill, daemon=True).start()

        @pytest.mark.parametrize("number", range(6))
        def test_it(lima, number):
            assert lima.run("true").ok
    """)
    result = pytester.runpytest_subprocess("-n3")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 5
    assert len(fake_lima.calls("create")) == 2
    fake_lima.assert_clean()


def test_05_a_failure_reaches_all_workers_at_once(pytester, fake_lima):
    fake_lima.scenario("start-fails")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n4")
    assert result.parseoutcomes()["errors"] == 12
    assert len(fake_lima.calls("create")) == 1
    assert "Could not access KVM" in result.stdout.str()
    fake_lima.assert_clean()


def test_05_the_vm_lives_until_the_last_worker_is_done(pytester, fake_lima):
    """One is done with its tests long before another asks for the VM."""
    pytester.makepyfile("""
        import time
        import pytest

        @pytest.mark.xdist_group("early")
        def test_early(lima): pass

        @pytest.mark.xdist_group("late")
        def test_sleep():
            time.sleep(3)

        @pytest.mark.xdist_group("late")
        def test_late(lima): pass
    """)
    result = pytester.runpytest_subprocess("-n2", "--dist=loadgroup")
    result.assert_outcomes(passed=3)
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_06_ctrl_c(pytester, fake_lima, start):
    pytester.makepyfile("""
        import time
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(lima, number):
            from pathlib import Path
            Path(__file__).with_name(f"testing-{number}").touch()
            time.sleep(60)
    """)
    run = start("-n2")
    fake_lima.wait_until(lambda: len(list(pytester.path.glob("testing-*"))) == 2, 30)
    os.killpg(run.pid, signal.SIGINT)
    run.ends(20)
    fake_lima.assert_clean()


@pytest.mark.parametrize("what", ["controller", "worker", "all"])
def test_06_kills_leave_nothing(pytester, fake_lima, start, soon, what):
    pytester.makepyfile("""
        import time
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(lima, number):
            from pathlib import Path
            Path(__file__).with_name(f"testing-{number}").touch()
            time.sleep(4)
    """)
    run = start("-n2", "--maxfail=1", "--max-worker-restart=0")
    fake_lima.wait_until(lambda: len(list(pytester.path.glob("testing-*"))) == 2, 30)
    workers = psutil.Process(run.pid).children()
    if what != "controller":
        for worker in workers[: 1 if what == "worker" else 2]:
            worker.kill()
    if what != "worker":
        run.hit(signal.SIGKILL)
    run.ends()
    soon()


@pytest.mark.parametrize("phase", ["booting", "testing"])
def test_06_a_cancelled_run_tears_down(pytester, fake_lima, start, soon, phase):
    if phase == "booting":
        fake_lima.scenario("slow", boot_seconds=60)
    pytester.makepyfile("""
        import time
        from pathlib import Path

        def test_it(lima):
            Path(__file__).with_name("testing").touch()
            time.sleep(60)
    """)
    run = start("-n2")
    if phase == "booting":
        run.await_line("booting (by gw")
    else:
        fake_lima.wait_until((pytester.path / "testing").exists, 30)
    run.hit(signal.SIGTERM)
    assert run.ends(30) == 143
    soon()


def test_05_the_controller_shows_who_starts_it(pytester, fake_lima):
    fake_lima.scenario("slow", boot_seconds=2)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n2")
    result.stdout.fnmatch_lines(["lima pl-*: * booting (by gw[01])"])


def test_06_what_is_kept_is_told_by_the_controller(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): assert 0\ndef test_other(lima): pass\n")
    result = pytester.runpytest_subprocess("-n2", "--lima-keep=on-failure")
    result.assert_outcomes(passed=1, failed=1)
    [name] = fake_lima.instances()
    result.stdout.fnmatch_lines([f"{name} was kept. To get in: *"])
    fake_lima.wait_until(lambda: not leases(fake_lima))


def leases(fake_lima) -> list[str]:
    [file] = fake_lima.dir.rglob("pytest-lima/instances/*.json")
    return json.loads(file.read_text())["leases"]


SSH = """#!/bin/sh
# The last argument is the command, which runs in another pid namespace with a state of its own.
for command; do :; done
export XDG_STATE_HOME={state} PYTEST_LIMA_HOME={home}
exec nsenter --pid --mount --target {pid} sh -c "cd {folder} && $command"
"""


@pytest.fixture
def elsewhere():
    """A pid namespace of its own, as a container has one: its pids mean nothing here."""
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "sleep", "300"]
    try:
        holder = subprocess.Popen(argv)
    except FileNotFoundError:
        pytest.skip("unshare is missing")
    inner: list[int] = []
    deadline = time.monotonic() + 5
    while not inner and holder.poll() is None and time.monotonic() < deadline:
        inner = [one.pid for one in psutil.Process(holder.pid).children()]
        time.sleep(0.02)
    if not inner:
        holder.kill()
        holder.wait()
        pytest.skip("making a pid namespace needs root")
    yield inner[0]
    psutil.Process(inner[0]).kill()
    holder.wait()


@pytest.fixture
def other_host(pytester, fake_lima, elsewhere, monkeypatch):
    """An ``ssh`` that leads into that namespace, with a ledger of its own there."""
    ssh = fake_lima.dir / "bin" / "ssh"
    ssh.write_text(SSH.format(state=fake_lima.dir / "other", home=fake_lima.dir / "o",
                              pid=elsewhere, folder=pytester.path))  # fmt: skip
    ssh.chmod(0o755)


@pytest.mark.usefixtures("other_host")
def test_05_workers_on_another_host_share_one_there(pytester, fake_lima):
    """Two there by ssh, two here: two ledgers, two VMs."""
    pytester.makepyfile(TESTS)
    spec = f"ssh=elsewhere//python={sys.executable}//chdir={pytester.path}"
    result = pytester.runpytest_subprocess("-rP", "--dist=load", "--tx", f"2*{spec}",
                                           "--tx", "2*popen")  # fmt: skip
    result.assert_outcomes(passed=12)
    assert len(fake_lima.calls("create")) == 2
    assert len(names(result)) == 2
    fake_lima.assert_clean()
    assert not list((fake_lima.dir / "o").glob("pl-*"))
    assert not list((fake_lima.dir / "other").rglob("*.json"))


def test_16_what_lives_in_another_container_is_left_alone(pytester, fake_lima, elsewhere):
    """It has the same home directory, and so the same ledger."""
    pytester.makepyfile(
        test_there="""
        import time
        from pathlib import Path

        def test_it(lima):
            Path(__file__).with_name("there").touch()
            while Path(__file__).with_name("there").exists():
                time.sleep(0.05)
            assert lima.run("true").ok
    """
    )
    pytester.makepyfile(test_here="def test_it(lima): pass")
    argv = ["nsenter", "--pid", "--mount", "--target", str(elsewhere), sys.executable, "-m",
            "pytest", "-p", "no:cacheprovider", str(pytester.path / "test_there.py")]  # fmt: skip
    there = subprocess.Popen(argv, cwd=pytester.path)
    fake_lima.wait_until((pytester.path / "there").exists, 30)
    [name] = fake_lima.instances()
    pytester.runpytest_subprocess("test_here.py", "--lima-reuse", "--lima-keep=never"
                                  ).assert_outcomes(passed=1)  # fmt: skip
    assert fake_lima.instances() == [name]
    (pytester.path / "there").unlink()
    assert there.wait(30) == 0
    fake_lima.assert_clean()


def test_01_between_a_worker_s_crash_and_its_replacement_the_controller_is_watched_over(
    pytester, fake_lima
):
    pytester.makeconftest("""
        import os
        import psutil
        import pytest

        OURS = {"pytest_lima.ownership.reaper", str(os.getpid())}

        @pytest.hookimpl(trylast=True)
        def pytest_testnodedown(node, error):
            argvs = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
            print("NODE", "crashed" if error else "ended", sum(set(argv) >= OURS for argv in argvs))
    """)
    pytester.makepyfile("""
        import os
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(lima, number):
            if number == 0:
                os.kill(os.getpid(), 9)
    """)
    result = pytester.runpytest_subprocess("-n1", "-s")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (1, 1)
    result.stdout.fnmatch_lines(["*NODE crashed 1*", "*NODE ended 1*"])
    fake_lima.assert_clean()


def test_01_a_crash_without_a_vm_starts_nothing(pytester, fake_lima):
    pytester.makeconftest("""
        import os
        import psutil
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_testnodedown(node, error):
            argvs = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
            print("REAPERS", sum({"pytest_lima.ownership.reaper", str(os.getpid())} <= set(argv)
                                 for argv in argvs))
    """)
    pytester.makepyfile("""
        import os
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(number):
            if number == 0:
                os.kill(os.getpid(), 9)
    """)
    result = pytester.runpytest_subprocess("-n1", "-s")
    result.stdout.fnmatch_lines(["*REAPERS 0*", "*REAPERS 0*"])
    assert fake_lima.calls() == []
