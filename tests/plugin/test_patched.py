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
