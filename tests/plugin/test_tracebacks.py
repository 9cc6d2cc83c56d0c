"""Tracebacks: a failure shows the user's line and the error, and none of our lines."""

from __future__ import annotations

import inspect
import re

import pytest

import pytest_lima
from pytest_lima import Instance
from pytest_lima.guest import commands

STYLES = ("auto", "long", "short", "line", "native", "no")


def assert_nothing_of_ours(result: pytest.RunResult) -> None:
    text = result.stdout.str() + result.stderr.str()
    assert [line for line in text.splitlines() if "pytest_lima/" in line] == []
    for library in ("paramiko/", "contextlib.py", "concurrent/", "pathlib.py", "threading.py"):
        assert library not in text
    # Neither a line of a module that one passes through.
    for module in (commands, inspect.getmodule(Instance), inspect.getmodule(Instance.reboot)):
        code = (line.strip() for line in inspect.getsource(module).splitlines())
        assert [line for line in code if len(line) > 25 and line in text] == []


@pytest.mark.parametrize("style", STYLES)
def test_a_failed_command_shows_the_users_line(pytester, fake_lima, style):
    pytester.makepyfile("""
        def test_it(lima):
            lima.run("echo no such package >&2; exit 3")
    """)
    result = pytester.runpytest(f"--tb={style}", "-l")
    result.assert_outcomes(failed=1)
    assert_nothing_of_ours(result)
    if style in ("auto", "long", "short", "native"):
        result.stdout.re_match_lines([
            r".*lima\.run\(.echo no such package",
            r".*CommandError: the command returned 3 after ",
            r".* ran: echo no such package", r".* seen: no such package",
        ])  # fmt: skip


def test_full_trace_shows_all(pytester, fake_lima):
    pytester.makepyfile("def test_it(lima): lima.run('false')")
    result = pytester.runpytest("--full-trace")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*pytest_lima/instance.py:*", "*pytest_lima/guest/commands.py:*"])


def test_a_fault_of_ours_is_shown_whole(pytester, fake_lima):
    pytester.makeconftest("""
        import pytest
        from pytest_lima.guest import files

        @pytest.fixture
        def faulty(monkeypatch):
            monkeypatch.delattr(files, "read_bytes")
    """)
    pytester.makepyfile("def test_it(lima, faulty): lima.read_text('/etc/hostname')")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*pytest_lima/instance.py:*"])


CALLS = """
    import pytest
    from pathlib import Path
    import pytest_lima
    from pytest_lima import Instance, LimaError

    ARGUMENTS = {
        "run": ("false",), "put": ("/nonexistent", "/tmp/x"), "get": ("/nonexistent", "x"),
        "read_bytes": ("/nonexistent",), "read_text": ("/nonexistent",),
        "write_bytes": ("/nonexistent/x", b""), "write_text": ("/nonexistent/x", ""),
        "limactl": ("list", "--format=json"), "snapshot": ("Not A Name!",), "restore": ("nosuch",),
    }
    PUBLIC = [name for name in dir(Instance) if not name.startswith("_")]
    # These end it, are for the pool, or never raise.
    OTHERS = {"disconnect", "detach", "replace"}

    def use(lima, name):
        value = getattr(lima, name)
        if callable(value):
            value(*ARGUMENTS.get(name, ()))

    @pytest.mark.parametrize("name", sorted(ARGUMENTS))
    def test_refused(lima, name):
        use(lima, name)

    @pytest.mark.parametrize("name", sorted({*PUBLIC} - OTHERS))
    def test_after_its_death(lima, name):
        if lima.cause_of_death() is None:
            import os, signal
            os.kill(int((lima.dir / "qemu.pid").read_text()), signal.SIGKILL)
            with pytest.raises(pytest_lima.LimaError):
                lima.run("sleep 20")
        use(lima, name)

    @pytest.mark.parametrize("name", ["docker_host", "containerd_address"])
    def test_engine(lima_factory, name):
        use(lima_factory(), name)

    @pytest.mark.parametrize("name", ["status", "limactl", "ssh_config"])
    def test_without_limactl(lima_factory, name, monkeypatch):
        lima = lima_factory()
        monkeypatch.setattr("pytest_lima.lima.process.run", refuse, raising=False)
        monkeypatch.setattr("pytest_lima.lima.paths.write_whole", refuse)
        use(lima, name)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "no")
"""


@pytest.mark.parametrize("style", ["auto", "native"])
def test_no_public_name_shows_our_lines(pytester, fake_lima, style):
    pytester.makepyfile(CALLS)
    result = pytester.runpytest(f"--tb={style}", "-rN", "-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] >= 15, outcomes
    assert_nothing_of_ours(result)
    text = result.stdout.str()
    for name in ("run", "put", "get", "read_text", "write_bytes", "snapshot", "restore"):
        assert re.search(rf"_ test_refused\[{name}\] _", text), name


FIXTURES = """
    import contextlib, pytest
    import pytest_lima

    @pytest.fixture
    def fails_in_setup(lima):
        lima.run("exit 4")

    @pytest.fixture
    def fails_in_teardown(lima):
        yield
        lima.run("exit 5")

    @pytest.fixture
    def also_fails_in_teardown(lima):
        yield
        lima.run("exit 6")

    def test_setup(fails_in_setup): pass

    def test_teardown(fails_in_teardown): pass

    def test_two_teardowns(fails_in_teardown, also_fails_in_teardown): pass

    def test_factory(lima_factory):
        lima_factory(cpus=0)

    def test_unknown_argument(lima_factory):
        lima_factory(cpu=1)

    def test_boot_fails_in_the_factory(lima_factory):
        lima_factory(template="nosuch.yaml")

    def test_library():
        with pytest_lima.lima_instance(template="nosuch.yaml"):
            pass

    def test_library_in_a_stack():
        with contextlib.ExitStack() as stack:
            stack.enter_context(pytest_lima.lima_instance(engine="rkt"))

    def test_in_the_library(lima):
        with pytest_lima.lima_instance() as vm:
            vm.run("exit 7")
"""


@pytest.mark.parametrize("style", ["auto", "short", "native"])
def test_fixtures_of_both_sides_show_the_users_line(pytester, fake_lima, style):
    pytester.makepyfile(FIXTURES)
    result = pytester.runpytest(f"--tb={style}", "-rN", "-l")
    result.assert_outcomes(failed=6, errors=3, passed=2)
    assert_nothing_of_ours(result)
    text = result.stdout.str()
    for line in ('lima.run("exit 4")', 'lima.run("exit 5")', 'lima.run("exit 6")',
                 "lima_factory(cpus=0)", "lima_factory(cpu=1)", "lima_instance(template",
                 "enter_context(", 'vm.run("exit 7")'):  # fmt: skip
        assert line in text, line


def test_a_fixture_asked_for_by_name_shows_that_line(pytester, fake_lima):
    fake_lima.scenario("create-fails")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("name", ["lima", "lima_fresh", "lima_docker_host"])
        def test_it(request, name):
            request.getfixturevalue(name)
    """)
    result = pytester.runpytest("-rN")
    result.assert_outcomes(failed=3)
    assert_nothing_of_ours(result)
    assert result.stdout.str().count(">       request.getfixturevalue(name)") == 3
    result.stdout.no_fnmatch_line("*_pytest*")


def test_threads_and_callbacks_of_the_users_are_shown(pytester, fake_lima):
    pytester.makepyfile("""
        import threading, unittest
        from concurrent.futures import ThreadPoolExecutor
        import pytest
        from pytest_lima import LimaError

        def work(lima):
            return lima.run("exit 11")

        def broken_callback(stream, data):
            raise AttributeError("of the user's callback")

        def test_in_an_executor(lima):
            with ThreadPoolExecutor() as executor:
                executor.submit(work, lima).result()

        def test_method_in_an_executor(lima):
            with ThreadPoolExecutor() as executor:
                [*executor.map(lima.run, ["exit 12"])]

        @pytest.mark.filterwarnings("default")
        def test_in_a_thread(lima):
            thread = threading.Thread(target=work, args=[lima])
            thread.start()
            thread.join()

        def test_callback(lima):
            lima.run("echo hi", on_output=broken_callback)

        def test_from_a_cause(lima):
            try:
                lima.run("exit 13")
            except LimaError as error:
                raise RuntimeError("no database") from error

        def test_while_handling(lima):
            try:
                {}["missing"]
            except KeyError:
                lima.run("exit 14")

        def test_group(lima):
            errors = []
            for command in ("exit 15", "exit 16"):
                try:
                    lima.run(command)
                except LimaError as error:
                    errors.append(error)
            raise ExceptionGroup("several", errors)

        def test_expected(lima):
            with pytest.raises(LimaError, match="something else"):
                lima.run("exit 17")

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def take(self, lima):
                self.lima = lima

            def test_it(self):
                self.lima.run("exit 18")
    """)
    result = pytester.runpytest("-rN")
    result.assert_outcomes(failed=8, passed=1, warnings=1)
    text = result.stdout.str()
    assert [line for line in text.splitlines() if "pytest_lima/" in line] == []
    result.stdout.fnmatch_lines([
        "*executor.submit(work, lima).result()", '*return lima.run("exit 11")',
        "*executor.map(lima.run*",
        "*run(*on_output=broken_callback)", '*raise AttributeError("of the user*',
        '*lima.run("exit 13")', "*direct cause*", "*raise RuntimeError*",
        '*{}[[]"missing"]', "*During handling*", '*lima.run("exit 14")',
        "*several*", "*lima.run(command)", "*lima.run(command)",
        "*with pytest.raises(LimaError, match=*",
        '*self.lima.run("exit 18")',
        "*Exception in thread*", '*return lima.run("exit 11")',
    ])  # fmt: skip


def test_an_interrupt_names_the_users_line(pytester, fake_lima):
    pytester.makepyfile("""
        import os, signal, threading

        def test_it(lima):
            threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
            lima.run("sleep 20")
    """)
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*", "*test_an_*.py:5: KeyboardInterrupt"])
    assert pytest_lima.__name__ + "/" not in result.stdout.str()
