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


LATE = ("http", "email", "difflib", "ctypes", "asyncio", "getpass", "cryptography", "nacl",
        "bcrypt", "cffi", "invoke", "h2", "hpack", "hyperframe", "tenacity", "qemu",
        "yaml")  # fmt: skip


@pytest.mark.parametrize("path", ["prepend", "append", "during"])
def test_what_is_imported_late_is_not_the_projects(pytester, fake_lima, path):
    folder = pytester.mkdir("tests")
    (folder / "test_it.py").write_text(
        "import sys\n"
        + ("from pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent))\n"
           if path == "during" else "")
        + "def test_it(lima_factory):\n"
        "    vm = lima_factory(engine='both')\n"
        "    assert vm.run('echo hello').stdout == 'hello\\n'\n"
    )  # fmt: skip
    for name in LATE:
        (folder / f"{name}.py").write_text(BROKEN)
    mode = "importlib" if path == "during" else path
    # Without the plugins that import some of these while the test runs.
    result = pytester.runpytest_subprocess(f"--import-mode={mode}", "tests")
    result.assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_to_the_project_its_names_are_its_own(pytester, fake_lima):
    folder = pytester.mkdir("tests")
    (folder / "hpack.py").write_text("MINE = True\n")
    (folder / "wsgiref.py").write_text("MINE = True\n")
    (folder / "test_it.py").write_text("""\
def test_it(lima):
    import hpack, wsgiref
    assert hpack.MINE and wsgiref.MINE

def test_engine(lima_factory):
    import hpack
    assert hpack.MINE
""")
    pytester.runpytest_subprocess("tests").assert_outcomes(passed=2)
    fake_lima.assert_clean()


@pytest.mark.parametrize("name", ["http", "yaml", "psutil"])
def test_whose_module_is_in_the_way_is_told(pytester, fake_lima, name):
    """A package of tests is imported by its name, before any test."""
    folder = pytester.mkdir("tests") / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "test_it.py").write_text("def test_it(lima): pass\n")
    result = pytester.runpytest_subprocess("-q", "tests")
    result.assert_outcomes(errors=1)
    library = {"http": "Python's own http", "yaml": "the library PyYAML"}.get(name, "the library")
    result.stdout.fnmatch_lines([f"LimaError: {folder}/__init__.py is in the way of {library}*"])
    fake_lima.assert_clean()
    # What the error advises.
    (folder.parent / "__init__.py").write_text("")
    pytester.runpytest_subprocess("-q", "tests").assert_outcomes(passed=1)
    fake_lima.assert_clean()
