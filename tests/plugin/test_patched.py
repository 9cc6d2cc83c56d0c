"""A VM in a test that has replaced what Python and the system are: it works, or says what can't."""

from __future__ import annotations

import re
import textwrap

import pytest

# What a test does to its world, each before it fails.
PATCHES = {
    "read_text": 'monkeypatch.setattr(pathlib.Path, "read_text", refuse)',
    "path-methods": """
        for name in ("open", "unlink", "mkdir", "iterdir", "glob", "write_text", "replace"):
            monkeypatch.setattr(pathlib.Path, name, refuse)
    """,
    "open": 'monkeypatch.setattr("builtins.open", refuse)\n'
            'monkeypatch.setattr("io.open", refuse)',
    "os": """
        for name in ("open", "read", "kill", "listdir", "scandir", "replace", "access", "pipe"):
            monkeypatch.setattr(os, name, refuse)
        monkeypatch.setattr(os, "getpid", lambda: 1)
    """,
    "processes": """
        monkeypatch.setattr(subprocess, "Popen", refuse)
        monkeypatch.setattr(subprocess, "run", refuse)
    """,
    "sockets": 'monkeypatch.setattr(socket, "socket", refuse)\n'
               'monkeypatch.setattr(socket, "create_connection", refuse)',
    "json": 'monkeypatch.setattr(json, "loads", refuse)\n'
            'monkeypatch.setattr(json, "dumps", refuse)',
    "files": 'monkeypatch.setattr(shutil, "rmtree", refuse)\n'
             'monkeypatch.setattr(tempfile, "TemporaryFile", refuse)',
    "threads": 'monkeypatch.setattr(threading, "Thread", refuse)',
    "time": """
        for name in ("time", "monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: 0.0)
        monkeypatch.setattr(time, "sleep", lambda _: None)
    """,
    "platform": 'monkeypatch.setattr(sys, "platform", "win32")',
    "environment": 'monkeypatch.setattr(os, "environ", {})',
    "variables": "for name in list(os.environ):\n    monkeypatch.delenv(name)",
    "directory": 'monkeypatch.chdir(tmp_path)\ntmp_path.rmdir()',
    "output": 'monkeypatch.setattr(sys, "stdout", None)\nmonkeypatch.setattr(sys, "stderr", None)',
    "modules": 'for name in ("json", "pathlib", "socket", "paramiko"):\n'
               "    monkeypatch.delitem(sys.modules, name)",
    "imports": """
        class Refusing:
            def find_spec(self, name, *args):
                if not name.startswith(("_pytest", "pygments", "encodings")):
                    refuse()

        monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
        monkeypatch.delitem(sys.modules, "pytest_lima.plugin.report", raising=False)
        monkeypatch.delitem(sys.modules, "paramiko")
    """,
}  # fmt: skip

FAILING = """
    import io, json, os, pathlib, shutil, socket, subprocess, sys, tempfile, threading, time
    import pytest

    def refuse(*args, **kwargs):
        raise RuntimeError("the test has replaced this")

    def test_first(lima):
        assert lima.run("echo hello").stdout == "hello\\n"

    def test_fails(lima, monkeypatch, tmp_path):
{patch}
        assert 0, "the test's own failure"

    def test_after_it(lima):
        assert lima.run("echo hello").stdout == "hello\\n"
"""


def lines_of(patch: str) -> str:
    return textwrap.indent(textwrap.dedent(patch).strip("\n"), " " * 8)


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_a_failure_is_the_tests_own(pytester, fake_lima, patch):
    pytester.makepyfile(FAILING.replace("{patch}", lines_of(patch)))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.stdout.fnmatch_lines(["E   *the test's own failure*"])
    # The VM's evidence; or in the place of what there can't be, one line.
    shown = re.findall(r"\n-+ lima (.*?) (?:of pl-\w+ )?-+\n(.*)", result.stdout.str())
    missing = [line for title, line in shown if title in ("evidence", "")]
    assert {title for title, _ in shown} >= {"console", "host agent"} or missing
    assert len(missing) <= 1
    assert all(re.fullmatch(r"left out: .*\w+Error: .*", line) for line in missing)
    fake_lima.assert_clean()


@pytest.mark.parametrize("name", ["threading.Thread", "threading.Thread.start"])
def test_threads_are_ours_where_a_connection_is_made_again(pytester, fake_lima, name):
    pytester.makepyfile(f"""
        from unittest import mock

        def test_first(lima): lima.run("true")

        def test_lost(lima):
            lima._link.close()
            with mock.patch("{name}"):
                assert lima.run("echo hello", input="", timeout=20).ok
                lima._link.close()
                assert 0, "its own failure"
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E   *its own failure*"])
    fake_lima.assert_clean()


def test_the_evidence_waits_for_no_login_for_long(pytester, fake_lima):
    pytester.makepyfile("""
        def test_it(lima):
            (lima.dir / "logins-held").touch()
            lima._link.close()
            assert 0, "its own failure"
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*lima cloud-init of *", "*within 10 s: the guest has not let us log in*"]
    )
    fake_lima.assert_clean()


ENDING = FAILING.replace(
    "def test_fails(lima, monkeypatch", "def test_fails(monkeypatch, lima_fresh"
)


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_a_vm_that_ends_there_ends(pytester, fake_lima, patch):
    """At once; or, where that can't be, after pytest, and a line says so."""
    pytester.makepyfile(ENDING.replace("{patch}", lines_of(patch)))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lima-standby=0")
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (2, 1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["E   *the test's own failure*"])
    fake_lima.assert_clean()


def test_the_evidence_waits_for_no_other_thread(pytester, fake_lima):
    pytester.makepyfile("""
        import threading

        def test_it(lima):
            begun = threading.Event()

            def reset():
                with lima._changing("reset"):
                    begun.set()
                    threading.Event().wait()

            threading.Thread(target=reset, daemon=True).start()
            assert begun.wait(10)
            assert 0, "its own failure"
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*lima cloud-init of *", "not asked: another thread *"])
    fake_lima.assert_clean()


# What tests of one's own code replace with no thought of a VM.
MOCKS = {
    "open": 'mock.patch("builtins.open", mock.mock_open(read_data="x"))',
    "path-open": 'mock.patch("pathlib.Path.open", mock.mock_open(read_data="x"))',
    "exists": 'mock.patch("pathlib.Path.exists", return_value=False)',
    "is_dir": 'mock.patch("pathlib.Path.is_dir", return_value=False)',
    "os-exists": 'mock.patch("os.path.exists", return_value=False)',
    "path-mkdir": 'mock.patch("pathlib.Path.mkdir")',
    "mkdir": 'mock.patch("os.mkdir")',
    "listdir": 'mock.patch("os.listdir", return_value=[])',
    "rmtree": 'mock.patch("shutil.rmtree")',
    "popen": 'mock.patch("subprocess.Popen")',
    "no-class": 'mock.patch("subprocess.Popen", lambda *args, **options: 1 / 0)',
    "popen-init": 'mock.patch("subprocess.Popen.__init__")',
    "popen-poll": 'mock.patch("subprocess.Popen.poll", return_value=0)',
    "time": 'mock.patch("time.time", side_effect=[1, 2, 3])',
}


@pytest.mark.parametrize("names", [[*MOCKS][start::4] for start in range(4)], ids=",".join)
def test_all_of_a_vm_goes_on_under_a_mock(pytester, fake_lima, names):
    mocks = "\n".join(f"    {name!r}: lambda: {MOCKS[name]}," for name in names)
    pytester.makepyfile(f"""
from unittest import mock
import pytest

MOCKS = {{
{mocks}
}}

@pytest.fixture(params=MOCKS)
def replaced(request):
    with MOCKS[request.param]():
        yield request.param

def test_first(lima): lima.run("true")

def test_it(replaced, lima, lima_fresh):
    for vm in (lima, lima_fresh):
        assert vm.run("echo hello").stdout == "hello\\n"
        assert vm.run("echo hello", user="root").stdout == "hello\\n"
        assert vm.status() == "Running"
    if replaced in ("open", "exists", "is_dir", "path-mkdir", "popen", "time"):
        lima_fresh.write_text("left", "x")
        lima_fresh.reset()
        assert not lima_fresh.run("cat left", check=False).ok
""")
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "--lima-standby=0", "--tb=short", timeout=300
    )
    result.assert_outcomes(passed=1 + len(names))


# What fixtures do before the first VM is there.
BEFORE = {
    "environment": "for name in list(os.environ):\n    monkeypatch.delenv(name)",
    "home": """
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("STATE", "CACHE", "DATA", "CONFIG"):
            monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
    """,
    "open": 'monkeypatch.setattr("builtins.open", refuse)',
    "imports": """
        class Refusing:
            def find_spec(self, name, *args):
                if not name.startswith(("_pytest", "pygments", "encodings")):
                    refuse()

        monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    """,
    "fake files": 'request.getfixturevalue("fs")',
}  # fmt: skip

FIRST = """
    import os, sys
    import pytest

    def refuse(*args, **kwargs):
        raise RuntimeError("the test has replaced this")

    @pytest.fixture
    def patched(monkeypatch, tmp_path, request):
{patch}

    def test_it(patched, lima_fresh, tmp_path):
        assert lima_fresh.run("echo hello").stdout == "hello\\n"

    def test_nothing_of_ours_is_there(tmp_path_factory):
        root = tmp_path_factory.getbasetemp()
        assert not [path for path in root.rglob("*") if "lima" in path.name]
"""


@pytest.mark.parametrize("args", ["-v", "-q"])
@pytest.mark.parametrize("patch", BEFORE.values(), ids=BEFORE)
def test_the_first_vm_is_made_on_this_host_as_it_was(pytester, fake_lima, patch, args):
    pytester.makepyfile(FIRST.replace("{patch}", lines_of(patch)))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lima-standby=0", args)
    outcomes = result.parseoutcomes()
    # Its end may have to wait until nothing is replaced any more.
    assert (outcomes["passed"], outcomes.get("failed", 0)) == (2, 0)
    assert patch == BEFORE["open"] or "errors" not in outcomes
    fake_lima.assert_clean()


def test_workers_take_it_as_it_was_too(pytester, fake_lima):
    pytest.importorskip("xdist")
    pytester.makepyfile(FIRST.replace("{patch}", lines_of(BEFORE["environment"])))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lima-standby=0", "-n1")
    result.assert_outcomes(passed=2)
    fake_lima.assert_clean()
