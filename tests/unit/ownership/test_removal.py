"""All of an instance goes, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_lima.errors import CleanupError
from pytest_lima.lima.limactl import Limactl
from pytest_lima.ownership import removal

NAME = "pl-1"


@pytest.fixture
def home(short_path: Path) -> Path:
    (short_path / NAME / "pl").mkdir(parents=True)
    (short_path / NAME / "lima.yaml").touch()
    return short_path


@pytest.fixture
def limactl(home: Path, tool: Callable[..., Path], tools_env: dict[str, str]):
    """A limactl whose `delete` does what the script says; by default it deletes."""

    def make(script: str = f'rm -r "$LIMA_HOME/{NAME}"') -> Limactl:
        return Limactl(str(tool("limactl", script)), home, tools_env, {})

    return make


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process with these arguments that sleeps."""
    started = []

    def begin(*args: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", "import time; time.sleep(60)", *args]
        started.append(subprocess.Popen(argv))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_its_processes_end_and_those_of_others_do_not(
    home: Path, limactl: Callable[..., Limactl], start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    folder = home / NAME
    mine = [start("-pidfile", f"{folder}/qemu.pid"), start("hostagent", f"{folder}/ha.pid"),
            start("create", f"--name={NAME}")]  # fmt: skip
    others = [start("-pidfile", f"{folder}2/qemu.pid"), start("tail", f"{folder}/serial.log"),
              start("create", f"--name={NAME}-db")]  # fmt: skip
    told: list[str] = []
    removal.remove(limactl(), NAME, told.append)
    assert all(one.wait(10) != 0 for one in mine)
    assert all(one.poll() is None for one in others)
    assert not folder.exists()
    assert told == []


def test_one_that_was_never_made_is_no_failure(home: Path, limactl: Callable[..., Limactl]) -> None:
    shutil.rmtree(home / NAME)
    (home / f"_{NAME}.yaml").touch()
    removal.remove(limactl("exit 1"), NAME, lambda message: None)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("file", ["ha.pid", "qemu.pid", "vz.pid"])
def test_a_pid_file_that_names_a_stranger_is_taken_away(
    home: Path, limactl: Callable[..., Limactl],
    start: Callable[..., subprocess.Popen[bytes]], file: str,
) -> None:  # fmt: skip
    """Before Lima reads it, which would kill whoever that is."""
    stranger = start("a stranger")
    (home / NAME / file).write_text(f"{stranger.pid}\n")
    told: list[str] = []
    removal.remove(limactl(f'[ ! -e "$LIMA_HOME/{NAME}/{file}" ] && rm -r "$LIMA_HOME/{NAME}"'),
                   NAME, told.append)  # fmt: skip
    assert stranger.poll() is None
    [warning] = told
    assert f"named process {stranger.pid}" in warning and "a stranger" in warning


def test_what_limactl_can_not_delete_is_removed_all_the_same(
    home: Path, limactl: Callable[..., Limactl]
) -> None:
    told: list[str] = []
    removal.remove(limactl("echo 'no way' >&2; exit 1"), NAME, told.append)
    assert not (home / NAME).exists()
    [warning] = told
    assert "no way" in warning


def test_a_limactl_that_has_gone_keeps_nothing(home: Path, limactl: Callable[..., Limactl]) -> None:
    """As by an upgrade, where it lay in a folder named by its version."""
    gone = limactl()
    Path(gone.path).unlink()
    told: list[str] = []
    removal.remove(gone, NAME, told.append)
    assert not (home / NAME).exists()
    [warning] = told
    assert NAME in warning and "No such file" in warning and "removed instead" in warning


def test_one_that_stays_without_a_limactl_is_an_error_with_the_command(
    home: Path, limactl: Callable[..., Limactl], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = limactl()
    Path(gone.path).unlink()

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch, pytest.raises(CleanupError) as caught:
        patch.setattr(shutil, "rmtree", refuse)
        removal.remove(gone, NAME, lambda message: None)
    assert "Permission denied" in str(caught.value)
    assert caught.value.remedy == f"rm -r {home / NAME}"


def test_what_nobody_can_remove_is_an_error_with_the_command(
    home: Path, limactl: Callable[..., Limactl], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch, pytest.raises(CleanupError) as caught:
        patch.setattr(shutil, "rmtree", refuse)
        removal.remove(limactl("echo 'no way' >&2; exit 1"), NAME, lambda message: None)
    assert f"delete --force {NAME}" in str(caught.value)
    assert (home / NAME).exists()


def test_our_own_process_is_not_taken_for_one_of_its(home: Path) -> None:
    """Whatever our command line has to say of it."""
    (home / NAME / "qemu.pid").write_text(str(os.getpid()))
    told: list[str] = []
    removal.halt(home / NAME, told.append)
    assert f"named process {os.getpid()}" in told[0]


def test_nothing_of_a_halted_one_keeps_it_from_being_started_again(home: Path) -> None:
    """A process that its parent hasn't collected counts as running by its pid file."""
    folder = home / NAME
    dead = subprocess.Popen(["true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    (folder / "ha.pid").write_text(str(dead.pid))
    for name in ("ha.sock", "qmp.sock", "half.tmp"):
        (folder / name).touch()
    removal.halt(folder, lambda _: None)
    dead.wait()
    assert not [path for path in folder.iterdir() if path.suffix in (".pid", ".sock", ".tmp")]
    assert (folder / "lima.yaml").exists()
