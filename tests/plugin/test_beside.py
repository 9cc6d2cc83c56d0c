"""Other plugins beside a VM: pyfakefs, pytest-socket, freezegun, time-machine."""

from __future__ import annotations

import re

import pytest


def test_a_fake_file_system_is_the_tests_alone(pytester, fake_lima):
    pytester.makepyfile("""
        import os
        from pathlib import Path
        import pytest

        def test_a_command(fs, lima):
            assert not Path("/proc").exists()
            assert lima.run("echo hello").stdout == "hello\\n"
            assert lima.status == "Running"
            assert "login:" in lima.console_log()
            assert not Path("/proc").exists()

        def test_its_files_are_those_that_are_copied(fs, lima):
            fs.create_file("/here/a", contents="from the fake")
            fs.create_file("/here/deep/b", contents="deep")
            lima.put("/here/a", "one")
            lima.put(Path("/here"), "all")
            assert lima.read_text("one") == "from the fake"
            assert lima.run("cat all/deep/b").stdout == "deep"
            lima.get("one", "/here/back")
            lima.get("all", "/here/tree")
            assert Path("/here/back").read_text() == "from the fake"
            assert Path("/here/tree/deep/b").read_text() == "deep"

        def test_a_new_connection(fs, lima):
            lima._link.close()
            assert lima.run("echo again").stdout == "again\\n"

        def test_one_that_begins_and_ends_there(fs, lima_fresh):
            lima_fresh.reset()
            assert lima_fresh.run("echo fresh").stdout == "fresh\\n"

        def test_fails(fs, lima):
            assert 0
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lima-standby=0")
    result.assert_outcomes(passed=4, failed=1)
    titles = re.findall(r"\n-+ lima (.*?) of pl-\w+ -+(?=\n)", result.stdout.str())
    assert titles == ["console", "host agent", "cloud-init"]
    result.stdout.no_fnmatch_line("*left out*")
    fake_lima.assert_clean()


SOCKETS = """
    import socket
    import pytest

    def refused(*address):
        with pytest.raises(RuntimeError):
            socket.create_connection(("127.0.0.1", 1), timeout=1)
        return True

    def test_first(lima):
        assert refused()
        assert lima.run("echo hello").stdout == "hello\\n"

    def test_a_new_connection(lima):
        lima._link.close()
        assert lima.run("echo again").stdout == "again\\n"
        assert refused()

    def test_engines(lima, lima_docker_host):
        assert refused()

    def test_fails(lima):
        lima._link.close()
        assert 0
"""


@pytest.mark.parametrize(
    "args", [["--disable-socket"], ["--allow-hosts=192.0.2.1"], ["--disable-socket", "-q"]]
)
def test_a_vm_is_reached_where_sockets_are_blocked(pytester, fake_lima, args):
    """Whether there is a header or not."""
    pytester.makepyfile(SOCKETS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.stdout.no_fnmatch_line("*left out*")
    titles = re.findall(r"\n-+ lima (.*?) of pl-\w+ -+(?=\n)", result.stdout.str())
    assert titles == ["console", "host agent", "cloud-init"]
    fake_lima.assert_clean()


@pytest.mark.parametrize("freeze", ["freezegun.freeze_time", "time_machine.travel"])
def test_time_stands_still_for_the_test_alone(pytester, fake_lima, freeze):
    fake_lima.scenario("clock-off")
    more = ", tick=False" if "travel" in freeze else ""
    pytester.makepyfile(f"""
        import time
        import freezegun, time_machine, pytest
        from pytest_lima import CommandTimeoutError

        NOW = time.clock_gettime(time.CLOCK_MONOTONIC)
        TODAY = time.time()

        def seconds():
            return time.clock_gettime(time.CLOCK_MONOTONIC)

        @pytest.fixture(autouse=True)
        def stopped():
            with {freeze}("2001-01-01"{more}):
                yield

        @pytest.fixture(scope="module", autouse=True)
        def stopped_before_it_boots():
            with {freeze}("2001-01-01"{more}):
                yield

        def test_its_clock_is_right(lima):
            assert time.time() < 1e9
            assert abs(float(lima.run("date +%s").stdout) - TODAY) < 300

        def test_a_command_ends_in_time(lima):
            begun = seconds()
            with pytest.raises(CommandTimeoutError):
                lima.run("sleep 30", timeout=0.5)
            assert 0.4 < seconds() - begun < 20
            assert 0 < lima.boot_seconds < 100
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lima-timings")
    result.assert_outcomes(passed=2)
    assert re.search(r"\n +\d\.\d\d s    booting\n", result.stdout.str())
    assert "0.00 s  pl-" not in result.stdout.str()
    fake_lima.assert_clean()


@pytest.mark.parametrize(
    ("scenario", "seconds", "error"),
    [
        ("never-ready", 3, "ReadyTimeoutError: the VM is not ready: no SSH within * s"),
        ("hang", 2, "StartError: limactl could not create pl-*"),
    ],
)
def test_what_hangs_ends_in_stopped_time(pytester, fake_lima, scenario, seconds, error):
    fake_lima.scenario(scenario)
    pytester.makepyfile("""
        import freezegun, pytest

        @pytest.fixture(scope="session", autouse=True)
        def stopped():
            with freezegun.freeze_time("2001-01-01"):
                yield

        def test_it(lima): pass
    """)
    result = pytester.runpytest_subprocess(f"--lima-timeout={seconds}", "--lima-timeout-factor=1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([error])
    fake_lima.assert_clean()
