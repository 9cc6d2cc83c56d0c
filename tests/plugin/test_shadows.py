"""A project whose modules have the names of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

TEST = "def test_it(lima): assert lima.run('echo hello').stdout == 'hello\\n'\n"
STDLIB = ("logging", "json", "shlex", "tempfile", "secrets", "platform")
LIBRARIES = ("psutil", "filelock", "platformdirs", "yaml", "paramiko", "sitecustomize",
             "usercustomize")  # fmt: skip
BROKEN = "raise RuntimeError('the project was imported')\n"


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_its_modules_are_left_alone(pytester, fake_lima, mode):
    """Python's and the libraries'; pytest itself has loaded some before it comes to the project."""
    folder = pytester.mkdir("tests")
    (folder / "test_it.py").write_text(TEST)
    for name in (*STDLIB, *LIBRARIES):
        (folder / f"{name}.py").write_text(BROKEN)
    # As their first import in a run would be the project's own fault.
    (folder / "conftest.py").write_text("")
    preloaded = [f"-p{name}" for name in STDLIB]
    result = pytester.runpytest_subprocess(*preloaded, f"--import-mode={mode}", "tests")
    result.assert_outcomes(passed=1)
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()


def test_nor_are_they_when_pytest_is_killed(pytester, fake_lima):
    """The reaper has imported all that its sweep takes."""
    folder = pytester.mkdir("tests")
    (folder / "test_it.py").write_text(
        "import os, signal\ndef test_it(lima): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for name in (*STDLIB, *LIBRARIES):
        (folder / f"{name}.py").write_text(BROKEN)
    preloaded = [f"-p{name}" for name in STDLIB]
    result = pytester.runpytest_subprocess(*preloaded, "tests")
    assert result.ret == -signal.SIGKILL
    fake_lima.wait_until(lambda: not fake_lima.records(), 15)
    fake_lima.assert_clean()


def test_nor_from_the_current_directory_and_pythonpath(pytester, fake_lima, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
    pytester.makepyfile(TEST)
    for name in ("psutil", "yaml", "paramiko"):  # other plugins begin with some
        (pytester.path / f"{name}.py").write_text(BROKEN)
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
                          cwd=pytester.path, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    fake_lima.assert_clean()


def test_variables_of_python_that_a_test_sets_are_for_its_own_children(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest

        @pytest.fixture(autouse=True)
        def variables(monkeypatch):
            for name in ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONPLATLIBDIR"):
                monkeypatch.setenv(name, "/nowhere")
            monkeypatch.setenv("PYTHONWARNINGS", "error")
            monkeypatch.setenv("PYTHONSAFEPATH", "")
            monkeypatch.setenv("PYTHONINSPECT", "1")

        def test_it(variables, lima_fresh): pass
    """)
    # Not of the fake, which is a Python too.
    pytester.runpytest_subprocess("-s").assert_outcomes(passed=1)
    fake_lima.wait_until(lambda: not fake_lima.processes())
    fake_lima.assert_clean()


def test_a_ledger_that_moves_amid_a_run_is_watched_where_it_is(pytester, fake_lima):
    """A test that changes HOME or XDG_STATE_HOME for its children changes it for no one else."""
    pytester.makepyfile("""
        import os, signal

        def test_first(lima_settings, request):
            from pytest_lima.plugin.session import session_key
            request.config.stash[session_key].pool  # as soon as anything asks of VMs

        def test_killed(monkeypatch, tmp_path, lima_fresh):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(autouse=True)
        def elsewhere(request, monkeypatch, tmp_path):
            if request.node.name == "test_killed":
                monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    """)
    assert pytester.runpytest_subprocess().ret == -signal.SIGKILL
    fake_lima.wait_until(lambda: not fake_lima.records(), 15)
    fake_lima.assert_clean()
