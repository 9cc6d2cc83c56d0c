from __future__ import annotations

import os
import stat
from pathlib import Path

import paramiko
import pytest

from pytest_lima.errors import LimaError
from pytest_lima.guest import files, ssh, transfers

GIB = 1024**3
AWKWARD = ["a b", "'", '"', "$HOME", "-n", "ü", "*", "a\nb", "\\"]


def test_bytes_go_in_and_come_back(connection, guest) -> None:
    path = f"{guest.root}/file"
    for data in (b"", bytes(range(256)) * 4096, b"text \xc3\xbc\n", b""):
        files.write_bytes(connection, path, data)
        assert files.read_bytes(connection, path) == data


@pytest.mark.parametrize("mode", [0o600, 0o755])
def test_a_file_goes_in_with_its_mode(connection, guest, tmp_path, mode: int) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"data")
    local.chmod(mode)
    files.put(connection, local, f"{guest.root}/copy")
    assert (guest.root / "copy").read_bytes() == b"data"
    assert stat.S_IMODE((guest.root / "copy").stat().st_mode) == mode
    files.get(connection, f"{guest.root}/copy", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"data"


def test_names_are_taken_as_they_are(connection, guest, tmp_path) -> None:
    local = tmp_path / "local"
    for name in AWKWARD:
        (local / name).mkdir(parents=True)
        (local / name / name).write_text(name)
    for place in AWKWARD:
        files.put(connection, local, f"{guest.root}/{place}")
        files.get(connection, f"{guest.root}/{place}", tmp_path / "back" / place)
        for name in AWKWARD:
            assert (guest.root / place / name / name).read_text() == name
            assert (tmp_path / "back" / place / name / name).read_text() == name


@pytest.mark.parametrize(
    ("verb", "use"),
    [
        ("read", lambda connection, path, local: files.read_bytes(connection, path)),
        ("get", lambda connection, path, local: files.get(connection, path, local / "x")),
        ("write", lambda connection, path, local: files.write_bytes(connection, path, b"x")),
        ("put", lambda connection, path, local: files.put(connection, local / "file", path)),
    ],
)
def test_what_the_guest_refuses_is_named(connection, guest, tmp_path, verb: str, use) -> None:
    (tmp_path / "file").write_text("x")
    path = f"{guest.root}/missing/file"
    with pytest.raises(LimaError, match=f"{verb} {path} in the guest failed") as caught:
        use(connection, path, tmp_path)
    assert caught.value.seen == "No such file"
    assert "check that the path exists" in str(caught.value)
    # The connection is as good as before.
    files.write_bytes(connection, f"{guest.root}/after", b"x")


def test_a_directory_is_no_file_to_read(connection, guest) -> None:
    with pytest.raises(LimaError, match="in the guest failed"):
        files.read_bytes(connection, str(guest.root))


def test_nothing_to_put(connection, tmp_path) -> None:
    with pytest.raises(LimaError, match=f"there is no file {tmp_path}/none to copy"):
        files.put(connection, tmp_path / "none", "/tmp/none")
    os.mkfifo(tmp_path / "fifo")  # to be read from for ever
    with pytest.raises(LimaError, match="there is no file"):
        files.put(connection, tmp_path / "fifo", "/tmp/fifo")


def test_a_fault_of_this_host_is_not_blamed_on_the_guest(connection, guest, tmp_path) -> None:
    (guest.root / "file").write_text("x")
    with pytest.raises((LimaError, OSError)) as caught:
        files.get(connection, f"{guest.root}/file", tmp_path / "missing" / "file")
    assert str(tmp_path / "missing") in str(caught.value)
    assert "in the guest failed" not in str(caught.value)


def test_a_single_file_is_bounded_by_what_comes_not_by_what_was_said(
    connection, guest, tmp_path, monkeypatch
) -> None:
    """The size a guest tells may be any; /dev/zero's is 0."""
    monkeypatch.setattr(transfers, "SIZE_LIMIT", 100_000)
    (guest.root / "large").write_bytes(b"x" * 100_001)
    for use in (
        lambda: files.read_bytes(connection, f"{guest.root}/large"),
        lambda: files.get(connection, f"{guest.root}/large", tmp_path / "back"),
        lambda: files.read_bytes(connection, "/dev/zero"),
        lambda: files.get(connection, "/dev/zero", tmp_path / "back"),
    ):
        with pytest.raises(LimaError, match="is larger than"):
            use()
    if (tmp_path / "back").exists():
        assert (tmp_path / "back").stat().st_size < 1_000_000


def test_what_was_not_written_whole_is_no_success(connection, tmp_path, monkeypatch) -> None:
    """As on a full disk: the answers to single writes are not waited for."""
    write = paramiko.SFTPFile.write
    monkeypatch.setattr(paramiko.SFTPFile, "write", lambda self, data: write(self, data[:-1]))
    with pytest.raises(LimaError, match="put .* in the guest failed") as caught:
        files.put(connection, Path(__file__), str(tmp_path / "there"))
    assert "bytes were written" in str(caught.value)


def test_an_sftp_server_that_does_not_answer_is_not_waited_for_for_ever(
    connection, guest, monkeypatch
) -> None:
    monkeypatch.setattr(ssh, "_CONNECT_TIMEOUT", 0.2)
    guest.sftp_answers.clear()
    with pytest.raises(LimaError, match="in time"):
        files.read_bytes(connection, "/etc/hostname")
    guest.sftp_answers.set()
    files.write_bytes(connection, f"{guest.root}/after", b"x")
    assert files.read_bytes(connection, f"{guest.root}/after") == b"x"
