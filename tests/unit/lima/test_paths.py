from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from pytest_lima.errors import HostError, TemplateError
from pytest_lima.lima import paths


def test_names_are_ours_short_and_never_the_same() -> None:
    names = {paths.instance_name() for _ in range(200)}
    assert len(names) == 200
    assert all(re.fullmatch(r"pl-[0-9a-f]{8}", name) for name in names)
    assert re.fullmatch(r"pl-[0-9a-f]{8}-registry", paths.instance_name("registry"))


@pytest.mark.parametrize("role", ["a", "7", "a-b", "a" * 24, "a--b"])
def test_roles_that_can_be_part_of_a_host_name(role: str) -> None:
    assert paths.instance_name(role).endswith("-" + role)


@pytest.mark.parametrize(
    "role", ["", "-", "-a", "a-", "A", "a" * 25, "a.b", "a_b", "a b", "a/b", "../a", "ü", "a\n"]
)
def test_roles_that_cannot(role: str) -> None:
    with pytest.raises(TemplateError) as caught:
        paths.instance_name(role)
    assert str(caught.value).splitlines()[0] == f"the name {role!r} can't be used"
    assert "1 to 24 of a-z" in str(caught.value)


def test_lima_home_is_made_for_the_user_alone(short_path: Path) -> None:
    home = paths.lima_home(str(short_path / "a" / "b"))
    assert home == short_path / "a" / "b"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    home.chmod(0o755)
    paths.lima_home(str(home))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_lima_home_is_never_the_users_own(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(short_path))
    monkeypatch.setenv("LIMA_HOME", str(short_path / "other"))
    assert paths.lima_home(None) == short_path / ".pytest-lima"
    assert paths.lima_home("~/x") == short_path / "x"


def test_the_limit_is_that_of_limas_longest_socket(short_path: Path) -> None:
    # Lima: UNIX_PATH_MAX counts the byte that ends the path.
    socket = "/pl-12345678/ssh.sock.1234567890123456"
    fill = paths.UNIX_PATH_MAX - 1 - len(socket) - len(str(short_path)) - 1
    longest = short_path / ("x" * fill)
    assert len(f"{longest}{socket}") == paths.UNIX_PATH_MAX - 1
    assert paths.lima_home(str(longest)) == longest
    with pytest.raises(HostError) as caught:
        paths.lima_home(f"{longest}xy")
    message = str(caught.value)
    assert "too long by 2 bytes" in message
    assert "--lima-home" in message
    assert not Path(f"{longest}xy").exists()


def test_bytes_count_not_characters(short_path: Path) -> None:
    with pytest.raises(HostError, match="too long"):
        paths.lima_home(str(short_path / ("ü" * 40)))


def test_a_symlink_does_not_shorten(short_path: Path) -> None:
    (short_path / "link").symlink_to(short_path / ("x" * 90))
    with pytest.raises(HostError, match="too long"):
        paths.lima_home(str(short_path / "link"))


def test_a_home_that_cannot_be_made(short_path: Path) -> None:
    (short_path / "file").write_text("")
    for home in (short_path / "file", short_path / "file" / "below"):
        with pytest.raises(HostError) as caught:
            paths.lima_home(str(home))
        assert str(caught.value).startswith(f"LIMA_HOME {home} can't be used\n  seen: ")


def test_our_folder_is_private(tmp_path: Path) -> None:
    folder = paths.our_folder(tmp_path)
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert paths.our_folder(tmp_path) == folder


def test_the_newest_fifty_failures_are_kept(tmp_path: Path) -> None:
    folder = paths.evidence_folder(tmp_path)
    for number in range(60):
        file = folder / f"{number}.log"
        file.write_text("")
        os.utime(file, (1_000_000 + number, 1_000_000 + number))
    assert paths.evidence_folder(tmp_path) == folder
    assert {int(file.stem) for file in folder.iterdir()} == set(range(10, 60))


def test_the_evidence_of_a_parallel_run_may_vanish(tmp_path: Path) -> None:
    folder = paths.evidence_folder(tmp_path)
    (folder / "gone.log").symlink_to(folder / "deleted-by-another-run")
    assert paths.evidence_folder(tmp_path) == folder


def test_template_files_lie_beside_the_instances(tmp_path: Path) -> None:
    # Lima takes each folder of LIMA_HOME that doesn't begin with _ or . for an instance.
    assert paths.template_file(tmp_path, "pl-1").parent == tmp_path
    assert paths.template_file(tmp_path, "pl-1").name.startswith("_")
    assert paths.evidence_folder(tmp_path).name.startswith("_")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "file.json"
    paths.write_whole(path, "old")
    reader = path.open()
    paths.write_whole(path, "new")
    assert (reader.read(), path.read_text()) == ("old", "new")
    reader.close()
    assert [one.name for one in tmp_path.iterdir()] == ["file.json"]
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        paths.write_whole(path, "half")
    assert path.read_text() == "new"
