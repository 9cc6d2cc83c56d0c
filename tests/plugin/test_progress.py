"""Progress: what a boot shows, on a terminal and elsewhere, and that it keeps out of the way."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

BOOT = """
    import sys
    import pytest

    @pytest.fixture(scope="session")
    def earlier():
        print("before")

    @pytest.fixture
    def around(earlier, lima):
        print("after")
        print("to stderr", file=sys.stderr)

    def test_it(around):
        assert 0
"""


def test_plain_lines_stay_out_of_what_is_captured(pytester, fake_lima):
    pytester.makepyfile(BOOT)
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([
        r"lima: template:ubuntu-lts, qemu, tcg, limactl 2\.2\.0 ", r"$",
        r"test_plain_lines_\S+\.py $",
        r"lima pl-[0-9a-f]{8}: +\d+ s  creating$",
        r"lima pl-[0-9a-f]{8}: +\d+ s  booting$",
        r"lima pl-[0-9a-f]{8}: +\d+ s  provisioning$",
        r"lima pl-[0-9a-f]{8}: ready after \d+\.\d s$",
        r"F +\[100%\]$",
    ], consecutive=True)  # fmt: skip
    result.stdout.fnmatch_lines(
        ["*- Captured stdout setup -*", "before", "after", "*- Captured stderr setup -*",
         "to stderr", "-* lima console of pl-* -*"], consecutive=True
    )  # fmt: skip
    assert "\x1b" not in result.stdout.str()


def test_quiet_shows_warnings_only(pytester, fake_lima):
    fake_lima.scenario("broken-accelerator")
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest("-q", "--lima-accel=auto")
    result.assert_outcomes(passed=1)
    told = [line for line in result.outlines if "lima" in line]
    assert len(told) == 1
    assert re.match(r"lima warning: (kvm|hvf) does not work here, the VM is emulated", told[0])


@pytest.mark.parametrize("args", ["-p no:terminal", "-p no:capture", "-s"])
def test_it_works_without(pytester, fake_lima, args):
    pytester.makepyfile(BOOT.replace("assert 0", "pass"))
    result = pytester.runpytest(*args.split())
    assert result.ret == pytest.ExitCode.OK
    if args == "-p no:terminal":
        assert result.outlines == result.errlines == []
    else:
        result.stdout.fnmatch_lines(["*before", "lima pl-*: ready after * s", "after"])
    fake_lima.assert_clean()


def run_on_a_terminal(*args: str, columns: int) -> str:
    """The output of pytest with a terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items()
            if key not in ("COLUMNS", "LINES", "PY_COLORS", "NO_COLOR")}  # fmt: skip
    env = {**kept, "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-m", "pytest", *args], env=env, stdin=theirs,
                          stdout=theirs, stderr=theirs) as process:  # fmt: skip
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # how Linux tells that nobody has the other end any more
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode()


def test_a_terminal_shows_one_live_line(pytester, fake_lima):
    fake_lima.scenario("slow", boot_seconds=1.5)
    pytester.makepyfile("def test_it(lima): pass")
    output = run_on_a_terminal("--color=no", columns=60)
    live = output.replace("\r\n", "\n").split("\r\x1b[K")
    assert len(live) > 4
    for text in live[1:-1]:
        assert re.match(r"lima pl-\w+: +\d+ s  (creating|booting|provisioning)", text)
        assert "\n" not in text
        assert len(text) < 60
    # The guest's last line, as it comes.
    assert any(re.search(r"booting: \S", text) for text in live)
    # What stays on the screen.
    assert re.match(r"lima pl-\w+: ready after \d+\.\d s\n", live[-1])


def test_a_failed_boot_ends_its_line(pytester, fake_lima):
    fake_lima.scenario("start-fails")
    pytester.makepyfile("def test_it(lima): pass")
    result = pytester.runpytest()
    result.stdout.fnmatch_lines(
        ["lima pl-*: * s  booting", "lima pl-*: failed after * s, while booting", "E *100%*"],
        consecutive=True,
    )
    fake_lima.assert_clean()
