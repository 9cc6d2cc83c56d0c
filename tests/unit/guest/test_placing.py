from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lima.errors import LimaError
from pytest_lima.guest import files, transfers, trees

AWKWARD = ["a b", "'", "$HOME", "-n", "ü", "*", "a\nb", "ends\n", "\\", "%s"]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def left_beside(path: Path) -> list[str]:
    """What of ours is in a folder besides the file."""
    return [one.name for one in path.parent.iterdir() if one.name.startswith(".pytest-lima")]


@pytest.fixture
def who(guest, tool) -> Callable[[], list[str]]:
    """Tells by whom what came was written; root, or whoever, is no other here."""
    log = guest.root / "who"
    for name in ("cat", "tar"):
        tool(name, f'echo "${{AS-ann}}" >>{log}; exec /usr/bin/{name} "$@"')
    return lambda: log.read_text().split()


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4096], ids=["empty", "one", "1M"])
@pytest.mark.parametrize("before", [None, b"longer than that was"])
@pytest.mark.parametrize("mode", [None, 0o600, 0o4755, 0o444])
def test_a_user_writes_a_file(connection, guest, who, data, before, mode: int | None) -> None:
    file = guest.root / "file"
    if before is not None:
        file.write_bytes(before)
        file.chmod(0o640)
    files.write_bytes(connection, str(file), data, user="bob", mode=mode)
    assert file.read_bytes() == data
    assert who() == ["bob"]
    assert mode_of(file) == (mode or (0o644 if before is None else 0o640))
    assert left_beside(file) == []


def test_the_login_user_gives_a_file_its_mode(connection, guest, who, tmp_path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"secret")
    local.chmod(0o755)
    files.put(connection, local, f"{guest.root}/put", mode=0o600)
    files.write_bytes(connection, f"{guest.root}/written", b"secret", mode=0o640)
    assert [mode_of(guest.root / name) for name in ("put", "written")] == [0o600, 0o640]
    assert who() == ["ann", "ann"]
    files.put(connection, local, f"{guest.root}/others", user="bob")
    assert mode_of(guest.root / "others") == 0o755
    assert who()[2:] == ["bob"]


def test_a_secret_is_nobody_else_s_at_any_moment(connection, guest, tool) -> None:
    """Not even who has opened the old file reads it."""
    file = guest.root / "secret"
    file.write_text("old")
    file.chmod(0o644)
    for name in ("cat", "chmod", "mv"):
        tool(name, f'stat -c "%a %n" {guest.root}/.pytest* {file} >>{guest.root}/seen; '
                   f'exec /usr/bin/{name} "$@"')  # fmt: skip
    with file.open() as reader:
        files.write_bytes(connection, str(file), b"new", mode=0o600)
        assert reader.read() == "old"
    seen = [line.split() for line in (guest.root / "seen").read_text().splitlines()]
    assert {mode for mode, path in seen if path != str(file)} == {"600"}
    assert {mode for mode, path in seen if path == str(file)} == {"644"}
    assert file.read_text() == "new" and mode_of(file) == 0o600


def test_a_file_that_keeps_its_mode_is_written_to(connection, guest) -> None:
    """What has it open or mounted sees the change, and /proc has no room for another."""
    file = guest.root / "file"
    file.write_text("old")
    before = file.stat().st_ino
    files.write_bytes(connection, str(file), b"new", user="root")
    assert (file.read_text(), file.stat().st_ino) == ("new", before)


@pytest.mark.parametrize("mode", [None, 0o600])
def test_a_symlink_leads_to_its_file(connection, guest, mode: int | None) -> None:
    (guest.root / "folder").mkdir()
    (guest.root / "link").symlink_to("folder/file")
    for data in (b"first", b"again"):  # it dangles at first
        files.write_bytes(connection, f"{guest.root}/link", data, user="root", mode=mode)
        assert (guest.root / "link").is_symlink()
        assert (guest.root / "folder" / "file").read_bytes() == data


@pytest.mark.parametrize("mode", [None, 0o600])
def test_a_device_stays_one(connection, guest, mode: int | None) -> None:
    (guest.root / "link").symlink_to("/dev/null")
    files.write_bytes(connection, f"{guest.root}/link", b"x", user="root", mode=mode)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", AWKWARD)
def test_names_are_taken_as_they_are(connection, guest, tmp_path, name: str) -> None:
    (guest.root / name).mkdir()
    for place in (f"{name}/{name}", f"{guest.root}/{name}/whole", f"bare{name}"):
        files.write_bytes(connection, place, b"x", user="root", mode=0o600)
        assert (guest.root / place).read_bytes() == b"x"
    files.write_bytes(connection, f"{name}/plain", b"y", user="root")
    assert (guest.root / name / "plain").read_bytes() == b"y"


REFUSED = {
    "missing/file": "No such file or directory",
    "folder": "it is a directory; expected the path of a file",
    "locked/file": "Permission denied",
    "pipe": "it is neither a file nor a device",
    "read-only": "Permission denied",
}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize(("name", "seen"), REFUSED.items())
def test_what_the_guest_refuses_is_named_with_the_user(
    connection, guest, tmp_path, name: str, seen: str
) -> None:
    (guest.root / "folder").mkdir()
    (guest.root / "locked").mkdir(mode=0o500)
    (guest.root / "read-only").touch(0o400)
    os.mkfifo(guest.root / "pipe")
    (tmp_path / "local").write_text("x" * 1_000_000)
    path = f"{guest.root}/{name}"
    with pytest.raises(LimaError) as caught:
        files.write_bytes(connection, path, b"x" * 1_000_000, user="bob")
    assert caught.value.what == f"write {path} as bob in the guest failed"
    assert seen in caught.value.seen
    assert "bob" in caught.value.remedy
    if name != "read-only":  # a file in its place is no matter of its mode
        with pytest.raises(LimaError) as caught:
            files.put(connection, tmp_path / "local", path, mode=0o600)
        assert caught.value.what == f"put {path} in the guest failed"
        assert seen in caught.value.seen
    assert sorted(one.name for one in guest.root.rglob(".pytest-lima*")) == []


def test_a_user_who_does_not_exist_is_named(connection, guest, tool, tmp_path) -> None:
    tool("sudo", "echo 'sudo: unknown user ghost' >&2; exit 1")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file").write_bytes(bytes(5_000_000))
    for local in (tmp_path / "local", tmp_path / "local" / "file"):
        with pytest.raises(LimaError, match="put /srv/x as ghost in the guest failed") as caught:
            files.put(connection, local, "/srv/x", user="ghost")
        assert caught.value.seen == "sudo: unknown user ghost"
        assert "exist" in caught.value.remedy


def test_a_disk_that_is_full_leaves_the_old_file(connection, guest, tool) -> None:
    (guest.root / "file").write_text("old")
    tool("cat", "head -c 10; echo 'cat: write error: No space left on device' >&2; exit 1")
    with pytest.raises(LimaError, match="No space left on device"):
        files.write_bytes(connection, f"{guest.root}/file", b"x" * 1_000_000, mode=0o600)
    assert (guest.root / "file").read_text() == "old"
    assert left_beside(guest.root / "file") == []


def test_what_did_not_come_whole_takes_no_file_s_place(connection, guest, tmp_path, monkeypatch):
    """Such as a file that gets shorter while it is read, and one of a process that was killed."""
    (guest.root / "file").write_text("old")
    (tmp_path / "local").write_text("new")
    monkeypatch.setattr(
        os, "fstat", lambda number: os.stat_result([0o100644, *[0] * 5, 9, 0, 0, 0])
    )
    with pytest.raises(LimaError, match="3 of 9 bytes came"):
        files.put(connection, tmp_path / "local", f"{guest.root}/file", user="root")
    assert (guest.root / "file").read_text() == "old"
    assert left_beside(guest.root / "file") == []


def test_a_guest_that_does_not_take_it_is_not_waited_for_for_ever(
    connection, guest, tool, monkeypatch
) -> None:
    tool("cat", "sleep 3; exec /usr/bin/cat")
    monkeypatch.setattr(transfers, "TIMEOUT", 0.5)
    with pytest.raises(LimaError, match="write .*/file as root in the guest failed") as caught:
        files.write_bytes(connection, f"{guest.root}/file", b"x", user="root", mode=0o600)
    assert caught.value.seen == "it did not end in time"


def test_an_interrupt_leaves_nothing_behind(connection, guest) -> None:
    (guest.root / "file").write_text("old")

    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise KeyboardInterrupt
            return super().read(10)

    from pytest_lima.guest import placing

    with pytest.raises(KeyboardInterrupt):
        placing.write(connection, Interrupted(b"x" * 100), 100, f"{guest.root}/file",
                      user="root", mode=0o600)  # fmt: skip
    gone = threading.Event()
    for _ in range(100):
        if not left_beside(guest.root / "file"):
            break
        gone.wait(0.05)
    assert left_beside(guest.root / "file") == []
    assert (guest.root / "file").read_text() == "old"


def test_a_directory_is_another_user_s(connection, guest, who, tmp_path) -> None:
    (tmp_path / "local" / "sub").mkdir(parents=True)
    (tmp_path / "local" / "sub" / "file").write_text("x")
    trees.put(connection, tmp_path / "local", f"{guest.root}/there", user="bob")
    assert (guest.root / "there" / "sub" / "file").read_text() == "x"
    assert who() == ["bob"]
