"""VMs that tests start and use from threads: eight of them, on the fake."""

from __future__ import annotations

HEAD = """
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import pytest_lima

def eight(function, *args):
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(function, *args) for _ in range(8)]
        return [future.result(60) for future in futures]

def reapers():
    return [one for one in psutil.Process().children()
            if one.status() != psutil.STATUS_ZOMBIE
            and "pytest_lima.ownership.reaper" in one.cmdline()]

def zombies():
    return [one for one in psutil.Process().children() if one.status() == psutil.STATUS_ZOMBIE]
"""


def test_the_first_vms_of_a_run_may_be_started_by_eight_threads(pytester, fake_lima):
    pytester.makepyfile(
        HEAD
        + """
def test_it(lima_factory):
    vms = eight(lambda: lima_factory())
    assert len({vm.name for vm in vms}) == 8
    assert [vm.run("echo hello").stdout for vm in vms] == ["hello\\n"] * 8
    assert len(reapers()) == 1
    assert zombies() == []
"""
    )
    result = pytester.runpytest_subprocess("-s", "--lima-timeout=60")
    result.assert_outcomes(passed=1)
    assert len(fake_lima.calls("create")) == 8
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()


def test_they_boot_side_by_side(pytester, fake_lima):
    """No lock is held for a boot: all eight have begun before the first is ready."""
    fake_lima.scenario("slow", boot_seconds=6, provision_seconds=0)
    pytester.makepyfile(HEAD + "def test_it(lima_factory): eight(lima_factory)")
    result = pytester.runpytest_subprocess("--lima-timeout=90", "--lima-start=cold")
    result.assert_outcomes(passed=1)
    said = result.stdout.str()
    assert said[: said.index("ready after")].count("booting") == 8
    fake_lima.assert_clean()


def test_where_none_can_be_kept_for_the_others_they_wait_for_the_first_alone(pytester, fake_lima):
    """With a warm start they wait for one to wake up from; the fake's can't be kept."""
    fake_lima.scenario("slow", boot_seconds=6, provision_seconds=0)
    pytester.makepyfile(HEAD + "def test_it(lima_factory): eight(lima_factory)")
    result = pytester.runpytest_subprocess("--lima-timeout=90")
    result.assert_outcomes(passed=1)
    lines = [line for line in result.stdout.lines if "  booting" in line or "ready after" in line]
    assert ["ready" in line for line in lines] == [False, True, *[False] * 7, *[True] * 7]
    fake_lima.assert_clean()


def test_a_failure_in_one_thread_is_no_other_s(pytester, fake_lima):
    bad, good = fake_lima.template("provision-failed"), fake_lima.template("ok")
    pytester.makepyfile(
        HEAD
        + f"""
def test_it(lima_factory):
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(lima_factory, template=one) for one in [{bad!r}, {good!r}] * 4]
    failed = [isinstance(one.exception(), pytest_lima.ProvisionError) for one in asked]
    assert failed == [True, False] * 4
    assert asked[1].result().run("echo hello").ok
"""
    )
    pytester.runpytest_subprocess("--lima-timeout=60").assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_one_that_is_ready_after_the_end_is_given_back(pytester, fake_lima):
    fake_lima.scenario("slow", boot_seconds=4, provision_seconds=0)
    pytester.makeconftest("""
        import threading
        threads = []

        def pytest_unconfigure():
            for thread in threads:
                thread.join(60)
    """)
    pytester.makepyfile(
        HEAD
        + """
from conftest import threads

def start(lima_factory):
    with pytest.raises(pytest_lima.LimaError, match="after the end of the run"):
        lima_factory()
    print("GIVEN BACK")

def test_it(lima_factory):
    threads.append(threading.Thread(target=start, args=(lima_factory,)))
    threads[0].start()
    deadline = time.monotonic() + 20
    while not reapers() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
"""
    )
    result = pytester.runpytest_subprocess("-s", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*GIVEN BACK*"])
    fake_lima.wait_until(lambda: not fake_lima.processes(), 15)
    fake_lima.assert_clean()


def test_eight_threads_use_one_vm(pytester, fake_lima):
    pytester.makepyfile(
        HEAD
        + """
def test_it(lima, lima_docker_host, tmp_path):
    numbers = iter(range(8))

    def use():
        number = next(numbers)
        for again in range(3):
            assert lima.run(f"echo {number}").stdout == f"{number}\\n"
            lima.write_text(f"/tmp/{number}", str(number))
            lima.get(f"/tmp/{number}", tmp_path / str(number))
            assert (tmp_path / str(number)).read_text() == lima.read_text(f"/tmp/{number}")
            assert lima.docker_host == lima_docker_host
            assert lima.ssh_config.read_text().startswith("Host lima-")

    eight(use)
"""
    )
    pytester.runpytest_subprocess("--lima-timeout=60").assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_what_begins_during_a_reset_or_reboot_waits_for_its_end(pytester, fake_lima):
    pytester.makepyfile(
        HEAD
        + """
@pytest.mark.parametrize("change", ["reset", "reboot"])
def test_it(lima_fresh, change):
    lima_fresh.run("touch /tmp/before")
    with ThreadPoolExecutor(8) as threads:
        changed = threads.submit(getattr(lima_fresh, change))
        while lima_fresh._changer == 0 and not changed.done():
            time.sleep(0.001)
        ran = [threads.submit(lima_fresh.run, "echo hello") for _ in range(7)]
        assert [one.result(60).stdout for one in ran] == ["hello\\n"] * 7
        assert changed.done()
        changed.result()

def test_what_is_under_way_is_told(lima_fresh):
    with ThreadPoolExecutor(2) as threads:
        long = threads.submit(lima_fresh.run, "echo begun >/tmp/begun; sleep 60", timeout=90)
        while not lima_fresh.run("cat /tmp/begun", check=False).ok:
            time.sleep(0.05)
        lima_fresh.reset()
        with pytest.raises(pytest_lima.ConnectionLostError, match="by another thread"):
            long.result(30)
    assert lima_fresh.run("echo hello").stdout == "hello\\n"

def test_changes_go_one_after_another(lima_fresh):
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(lima_fresh.reset) for _ in range(4)]:
            future.result(60)
    assert lima_fresh.run("echo hello").stdout == "hello\\n"
"""
    )
    result = pytester.runpytest_subprocess("--lima-timeout=60")
    result.assert_outcomes(passed=4)
    fake_lima.assert_clean()
