"""What a test does with its streams holds, whatever is shown of a boot meanwhile."""

from __future__ import annotations

import pytest

REDIRECTS = """
    import contextlib, doctest, io, os, sys, threading
    import pytest

    def test_redirected(lima):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            print("before")
            lima.reboot()
            print("after")
            print("to stderr", file=sys.stderr)
        assert out.getvalue() == "before\\nafter\\n"
        assert err.getvalue() == "to stderr\\n"

    def test_replaced(lima, monkeypatch):
        ours = io.StringIO(), io.StringIO("said")
        monkeypatch.setattr("sys.stdout", ours[0])
        monkeypatch.setattr("sys.stdin", ours[1])
        lima.reboot()
        assert (sys.stdout, sys.stdin) == ours and input() == "said"
        print("after")
        assert ours[0].getvalue() == "after\\n"

    def test_nested(lima):
        out = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()):
            with contextlib.redirect_stdout(out):
                lima.reboot()
                print("inner")
        assert out.getvalue() == "inner\\n"

    def test_capsys(lima, capsys):
        print("before")
        lima.reboot()
        print("after")
        assert capsys.readouterr().out == "before\\nafter\\n"

    def test_capsys_disabled(lima, capsys):
        with capsys.disabled():
            lima.reboot()
            print("for everybody")
        print("after")
        assert capsys.readouterr().out == "after\\n"

    def test_file_descriptor(lima, tmp_path):
        saved, path = os.dup(1), tmp_path / "out"
        try:
            with open(path, "w") as file:
                os.dup2(file.fileno(), 1)
            lima.reboot()
            os.write(1, b"after\\n")
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        assert path.read_text() == "after\\n"

    def test_doctest(lima):
        def function():
            pass
        test = doctest.DocTestParser().get_doctest(
            ">>> lima.reboot(); print('after')\\nafter\\n", {"lima": lima}, "name", "file", 0)
        assert doctest.DocTestRunner().run(test).failed == 0

    def test_from_another_thread(lima, capsys):
        done = threading.Event()
        def chatter():
            while not done.wait(0.001):
                print("x" * 20)
        thread = threading.Thread(target=chatter)
        thread.start()
        lima.reboot()
        done.set()
        thread.join()
        assert set(capsys.readouterr().out.splitlines()) == {"x" * 20}
"""
FD = """
    def test_capfd(lima, capfd):
        import os
        os.write(1, b"before ")
        lima.reboot()
        os.write(1, b"after")
        assert capfd.readouterr().out == "before after"
"""
MODES = {
    "fd": (), "sys": ("--capture=sys",), "tee": ("--capture=tee-sys",), "s": ("-s",),
    "off": ("-p", "no:capture", "-k", "not cap and not thread"),
}  # fmt: skip


@pytest.mark.parametrize("mode", [*MODES, "in a captured process"])
def test_redirections_hold(pytester, fake_lima, mode):
    pytester.makepyfile(REDIRECTS + (FD if mode != "off" else ""))
    inside = mode not in MODES
    run = pytester.runpytest_inprocess if inside else pytester.runpytest_subprocess
    result = run(*MODES.get(mode, ()))
    assert result.ret == pytest.ExitCode.OK
    text = result.stdout.str()
    assert text.count(": ready after ") >= 6
    if mode not in ("tee", "s"):
        assert "x" * 20 not in text
    if mode not in ("tee", "s", "off"):
        assert "\nafter" not in text


def test_a_boot_in_a_doctest_keeps_its_output(pytester, fake_lima):
    pytester.makepyfile(mod='''
        def use():
            """
            >>> getfixture("lima").run("echo hi").stdout
            'hi\\\\n'
            """
    ''')  # fmt: skip
    pytester.runpytest("--doctest-modules").assert_outcomes(passed=1)
