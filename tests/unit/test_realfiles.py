"""The host's files, where a test has put others in their place."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem_unittest import Patcher

from pytest_lima import realfiles


def test_parts_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    assert realfiles.read_bytes(file) == b"0123456789"
    assert realfiles.read_bytes(file, since=8) == b"89"
    assert realfiles.read_bytes(file, since=2, most=3) == b"234"
    assert realfiles.read_bytes(file, since=20) == b""
    assert realfiles.size(file) == 10
    assert realfiles.size(tmp_path / "none") is None
    with pytest.raises(FileNotFoundError):
        realfiles.read_text(tmp_path / "none")


def test_what_is_no_utf_8_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xffb")
    assert realfiles.read_text(tmp_path / "file") == "a\ufffdb"


def test_a_fake_file_system_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("real")
    with Patcher() as patcher:
        assert patcher.fs is not None
        patcher.fs.create_file(tmp_path / "file", contents="fake")
        assert realfiles.read_text(tmp_path / "file") == "real"
        assert realfiles.size(tmp_path / "file") == 4
        assert realfiles.link_target(Path("/proc/self/exe")).startswith("/")
        with realfiles.aside():
            assert os.path.exists("/usr/bin/env")  # noqa: PTH110 - pyfakefs has it by name
            with realfiles.aside():
                pass
            assert os.path.exists("/usr/bin/env")  # noqa: PTH110
        assert not os.path.exists("/usr/bin/env")  # noqa: PTH110
    with realfiles.aside():
        pass


def test_processes_are_those_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getpid()
    with subprocess.Popen(["sleep", "30"]) as child:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        monkeypatch.setattr(os, "kill", lambda *_: None)
        assert realfiles.pid() == mine
        realfiles.kill(child.pid, signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
