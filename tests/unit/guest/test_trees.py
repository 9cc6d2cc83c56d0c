from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lima.errors import ConnectionLostError, LimaError
from pytest_lima.guest import files, transfers, trees

GIB = 1024**3
AWKWARD = ["a b", "'", '"', "$HOME", "-n", "ü", "*", "a\nb", "\\"]


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
            for path in folder.rglob("*")}  # fmt: skip


def test_a_directory_goes_there_and_back_as_it_is(connection, guest, tmp_path) -> None:
    local = tmp_path / "local"
    (local / "empty").mkdir(parents=True)
    (local / "script").write_text("#!/bin/sh\n")
    (local / "script").chmod(0o755)
    (local / "secret").write_text("x")
    (local / "secret").chmod(0o600)
    (local / "large").write_bytes(os.urandom(3_000_000))
    files.put(connection, local, f"{guest.root}/new/place")
    assert modes(guest.root / "new" / "place") == modes(local)
    files.get(connection, f"{guest.root}/new/place", tmp_path / "back")
    assert modes(tmp_path / "back") == modes(local)
    assert (tmp_path / "back" / "large").read_bytes() == (local / "large").read_bytes()


def test_a_directory_lands_beside_what_is_there(connection, guest, tmp_path) -> None:
    for folder in ("guest/there", "local", "back"):
        (tmp_path / folder).mkdir()
    (guest.root / "there" / "old").write_text("old")
    (tmp_path / "local" / "new").write_text("new")
    (tmp_path / "back" / "mine").write_text("mine")
    files.put(connection, tmp_path / "local", f"{guest.root}/there")
    files.get(connection, f"{guest.root}/there", tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["mine", "new", "old"]


def test_a_symlink_to_a_directory_is_that_directory(connection, guest, tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.put(connection, tmp_path / "link", f"{guest.root}/copy")
    assert (guest.root / "copy" / "file").read_text() == "x"


def test_the_users_ids_and_name_stay_on_this_host(connection, guest, tmp_path) -> None:
    seen: list[bytes] = []

    def keep(command: str, channel) -> bool:
        while data := channel.recv(65536):
            seen.append(data)
        channel.send_exit_status(0)
        channel.close()
        return True

    guest.answer = keep
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file").write_text("x")
    files.put(connection, tmp_path / "local", "/anywhere")
    with tarfile.open(fileobj=io.BytesIO(b"".join(seen))) as archive:
        owners = {(one.uid, one.gid, one.uname, one.gname) for one in archive.getmembers()}
    assert owners == {(0, 0, "", "")}


def test_a_tree_the_guest_has_no_room_for(connection, guest, tmp_path, tool) -> None:
    tool("tar", "echo 'tar: x: Cannot write: No space left on device' >&2; exit 2")
    (tmp_path / "local").mkdir()
    with pytest.raises(LimaError, match="No space left on device"):
        files.put(connection, tmp_path / "local", f"{guest.root}/there")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'tar: Cannot open: Permission denied' >&2; exit 2", "Permission denied"),
        ("/usr/bin/tar \"$@\"; echo 'tar: ./x: Permission denied' >&2; exit 2", "Permission"),
        ("echo 'sh: tar: not found' >&2; exit 127", "not found"),
    ],
    ids=["nothing", "a-part", "no-tar"],
)
def test_a_tree_that_cannot_be_read_whole(connection, guest, tmp_path, tool, script, told) -> None:
    """A test must not go on with a part of it."""
    (guest.root / "tree").mkdir()
    (guest.root / "tree" / "file").write_text("x")
    tool("tar", script)
    with pytest.raises(LimaError, match=told):
        files.get(connection, f"{guest.root}/tree", tmp_path / "back")


def member(name: str, data: bytes = b"", **facts: object) -> bytes:
    """One member of a tar stream, as a hostile guest may make it."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    body = data.ljust(-(-len(data) // 512) * 512, b"\0")
    return info.tobuf(tarfile.PAX_FORMAT) + body


@pytest.fixture
def hostile(connection, guest, tmp_path) -> Callable[[bytes], Path]:
    """Gets a directory from a guest that answers with this stream; where it would land."""
    (guest.root / "tree").mkdir()

    def get(stream: bytes, end: bytes = b"\0" * 1024) -> Path:
        def answer(command: str, channel) -> bool:
            with contextlib.suppress(OSError):  # we may have had enough of it
                channel.sendall(stream + end)
                channel.send_exit_status(0)
                channel.close()
            return True

        guest.answer = answer
        files.get(connection, f"{guest.root}/tree", tmp_path / "back")
        return tmp_path / "back"

    return get


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../evil", tarfile.REGTYPE), ("a/../../evil", tarfile.REGTYPE), ("..", tarfile.DIRTYPE),
     ("/tmp/pl-evil", tarfile.REGTYPE), ("./../evil", tarfile.DIRTYPE)],
)  # fmt: skip
def test_names_that_lead_outside_are_refused(hostile, tmp_path, name: str, kind: bytes) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LimaError, match="a name outside the directory") as caught:
        hostile(member("fine", b"x") + member(name, type=kind))
    assert caught.value.seen == name
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "back"])
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["fine"]
    assert not Path("/tmp/pl-evil").exists()


def test_links_pipes_and_devices_are_left_out(hostile) -> None:
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
    odd = [
        member(f"{folder}odd{number}", type=kind, linkname=target)
        for number, kind in enumerate(kinds)
        for folder, target in (("", "/etc/passwd"), ("sub/", "../../user"))
    ]
    back = hostile(member("sub", type=tarfile.DIRTYPE) + b"".join(odd) + member("file", b"data"))
    assert sorted(str(path.relative_to(back)) for path in back.rglob("*")) == ["file", "sub"]
    assert (back / "file").read_bytes() == b"data"


def test_a_file_behind_a_link_of_the_same_stream_goes_nowhere(hostile, tmp_path) -> None:
    (tmp_path / "outside").mkdir()
    with pytest.raises((LimaError, OSError)):
        hostile(
            member("sub", type=tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
            + member("sub/evil", b"x")
        )
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["link", "link/evil"])
def test_a_link_that_lies_at_the_destination_is_not_followed(hostile, tmp_path, name) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(LimaError, match="a symlink lies in the way"):
        hostile(member(name, b"x"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_modes_for_others_to_write_and_setuid_are_dropped(hostile) -> None:
    back = hostile(member("all", mode=0o7777) + member("none", mode=0))
    assert modes(back) == {"all": 0o755, "none": 0o600}


SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1"}


@pytest.mark.parametrize(
    "large",
    [
        pytest.param(member("large", size=5 * GIB), id="announced"),
        pytest.param(
            member("large", b"x", pax_headers={**SPARSE, "GNU.sparse.size": str(10 * GIB)}),
            id="sparse",
        ),
        pytest.param(
            member("none", b"x", pax_headers={**SPARSE, "GNU.sparse.size": str(-(2**62))})
            + member("large", size=5 * GIB),
            id="negative",
        ),
        pytest.param(member("a", type=tarfile.FIFOTYPE, size=5 * GIB), id="fifo"),
    ],
)
def test_more_than_the_limit_is_refused_before_it_is_written(hostile, tmp_path, large) -> None:
    with pytest.raises(LimaError, match="more than 4 GiB"):
        hostile(member("small", b"x") + large, end=b"")
    assert sum(file.stat().st_size for file in (tmp_path / "back").iterdir()) <= 2


def test_more_files_than_the_limit(hostile, monkeypatch) -> None:
    monkeypatch.setattr(trees, "_COUNT_LIMIT", 3)
    with pytest.raises(LimaError, match="or 3 files"):
        hostile(b"".join(member(f"{number}") for number in range(4)))


@pytest.mark.parametrize(
    ("stream", "end"),
    [
        (b"", b""),
        (b"this is no tar " * 100, b""),
        (member("file", b"x" * 4096)[:2000], b""),
        (member("file", b"x") + member("file/below", b"x"), b"\0" * 1024),
        (member("file", b"x") + member("file", type=tarfile.DIRTYPE), b"\0" * 1024),
        (member("sub", type=tarfile.DIRTYPE) + member("sub", b"x"), b"\0" * 1024),
        (member("no/parent", b"x"), b"\0" * 1024),
        (member("map", b"no number\n" * 60, pax_headers={
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "map",
            "GNU.sparse.realsize": "1"}), b"\0" * 1024),
    ],
    ids=["empty", "no-tar", "cut", "below-a-file", "file-again-as-dir", "dir-as-file",
         "no-parent", "sparse"],
)  # fmt: skip
def test_a_stream_that_makes_no_sense_is_the_guests_fault(hostile, stream, end) -> None:
    with pytest.raises(LimaError):
        hostile(stream, end)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(member("x", type=tarfile.GNUTYPE_LONGNAME, size=3 * GIB), id="long-name"),
        pytest.param(member("x", type=tarfile.XHDTYPE, size=3 * GIB), id="pax"),
    ],
)
def test_a_header_is_not_read_into_memory_whatever_its_size(hostile, header: bytes) -> None:
    with pytest.raises(LimaError, match="sends more than it announces"):
        hostile(header + b"x" * 1_500_000)


def test_a_log_that_grows_meanwhile_is_no_failure(connection, guest, tmp_path, tool) -> None:
    (guest.root / "tree").mkdir()
    (guest.root / "tree" / "log").write_text("line\n")
    tool("tar", '/usr/bin/tar "$@"; echo "tar: ./log: file changed as we read it" >&2; exit 1')
    files.get(connection, f"{guest.root}/tree", tmp_path / "back")
    assert (tmp_path / "back" / "log").read_text() == "line\n"


def test_a_connection_that_breaks_off(connection, guest, tmp_path) -> None:
    def drop(command: str, channel) -> bool:
        channel.sendall(member("file", b"x" * 4096)[:2000])
        guest.drop_connections()
        return True

    (guest.root / "tree").mkdir()
    guest.answer = drop
    with pytest.raises(ConnectionLostError):
        files.get(connection, f"{guest.root}/tree", tmp_path / "back")
    with pytest.raises(ConnectionLostError):
        files.read_bytes(connection, f"{guest.root}/file")


def test_a_guest_that_stops_sending_is_not_waited_for_for_ever(
    connection, guest, tmp_path, monkeypatch
) -> None:
    held = []

    def stall(command: str, channel) -> bool:
        held.append(channel)
        channel.sendall(member("file", b"x" * 4096)[:2000])
        return True

    (guest.root / "tree").mkdir()
    guest.answer = stall
    monkeypatch.setattr(transfers, "TIMEOUT", 0.3)
    with pytest.raises(LimaError, match="in time") as caught:
        files.get(connection, f"{guest.root}/tree", tmp_path / "back")
    assert "whether the guest is busy" in caught.value.remedy


def test_the_directory_that_is_there_keeps_its_mode(connection, guest, tmp_path) -> None:
    (tmp_path / "local" / "sub").mkdir(parents=True, mode=0o700)
    (tmp_path / "local").chmod(0o700)
    (tmp_path / "local" / "sub").chmod(0o750)
    (guest.root / "there").mkdir()
    (guest.root / "there").chmod(0o755)
    files.put(connection, tmp_path / "local", f"{guest.root}/there")
    assert stat.S_IMODE((guest.root / "there").stat().st_mode) == 0o755
    assert modes(guest.root / "there") == {"sub": 0o750}


def test_an_empty_directory_is_made(connection, guest, tmp_path) -> None:
    (tmp_path / "local").mkdir()
    files.put(connection, tmp_path / "local", f"{guest.root}/there")
    assert list((guest.root / "there").iterdir()) == []
