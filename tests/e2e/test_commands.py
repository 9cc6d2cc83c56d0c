"""Commands in a real guest: startup files, interrupts, forked children."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_lima import Instance, LimaError

pytestmark = pytest.mark.lima

WAYS: list[dict[str, str]] = [{}, {"input": "fed"}, {"user": "root"},
                              {"user": "root", "input": "fed"}]  # fmt: skip


@pytest.fixture
def bashrc(lima: Instance) -> Iterator[str]:
    """The login user's; as it was afterwards, for which no shell may be needed."""
    before = lima.read_text(".bashrc")
    lima._link.close()  # the shells that stay have read it; the forwards are for others too
    yield ".bashrc"
    lima.write_text(".bashrc", before)
    lima._link.close()


@pytest.mark.parametrize("said", ["exec /bin/dash", "exit 0", "exec >/dev/null 2>&1"])
def test_a_command_that_startup_files_keep_from_running(
    lima: Instance, bashrc: str, said: str
) -> None:
    lima.write_text(bashrc, f"{said}\n")
    for way in WAYS:
        with pytest.raises(LimaError, match="startup files"):
            lima.run(["touch", "/tmp/ran"], check=False, **way)  # type: ignore[arg-type]
    with pytest.raises(LimaError):
        lima.get("/etc", Path("nowhere"))
    lima.write_text(bashrc, "")
    assert not lima.run("test -e /tmp/ran", check=False).ok


@pytest.mark.parametrize("said", ["read -r x; printf noise; printf noise >&2; set -x",
                                  "echo() { builtin echo no; }; exit() { :; }; eval() { :; }\n"
                                  "read() { :; }; trap 'builtin echo bye' EXIT"])  # fmt: skip
def test_noise_of_startup_files_is_no_output(
    lima: Instance, bashrc: str, said: str, tmp_path: Path
) -> None:
    lima.write_text(bashrc, f"{said}\n")
    for way in WAYS:
        result = lima.run(["sh", "-c", "cat; echo out; echo err >&2"], **way)  # type: ignore[arg-type]
        assert result.stdout == way.get("input", "") + "out\n"
        assert result.stderr == "err\n"
    lima.put(Path(__file__).parent, "/tmp/of-startup")
    lima.get("/tmp/of-startup", tmp_path / "back")
    assert (tmp_path / "back" / Path(__file__).name).exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seconds", [0.02, 0.3, 2.0])
def test_an_interrupt_ends_what_runs(lima: Instance, way: dict[str, str], seconds: float) -> None:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        lima.run("trap '' TERM HUP INT PIPE; echo begun; sleep 4321; true", **way)  # type: ignore[arg-type]
    assert not lima.run(["pgrep", "-x", "-f", "sleep 4321"], check=False, timeout=30).ok
    assert lima.run("echo next").stdout == "next\n"


def test_a_forked_child_has_a_connection_of_its_own(lima: Instance) -> None:
    lima.run("true")
    before = lima._link.get()
    for _ in range(2):
        pid = os.fork()
        if not pid:
            try:
                good = lima.run("echo child", user="root").stdout == "child\n"
                lima.disconnect()
            finally:
                os._exit(0 if good else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert lima.run("echo parent").stdout == "parent\n"
    assert lima._link.get() is before
