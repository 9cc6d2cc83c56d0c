"""What a kept machine's record says, and what is taken for none."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.guest.identity import Kept
from pytest_lima.lima.info import InstanceInfo
from pytest_lima.warm import golden as module
from pytest_lima.warm.golden import RECORD, Golden


@pytest.fixture
def golden(tmp_path: Path) -> Golden:
    (tmp_path / "disk-1").write_bytes(b"x" * 10_000)
    made = Golden(tmp_path, "k1", "pl-1", "template:debian", Kept("token", "lima-pl-1"), "ann",
                  {"ssh-ed25519": "AAAA"}, "disk-1", "qcow2", ("pl-0", "pl-1"),
                  info=InstanceInfo("pl-1", "Running", tmp_path, "qemu", "x86_64", 2, 2048,
                                    {"user": {"name": "ann"}}))  # fmt: skip
    module.write(made)
    return made


def test_what_is_written_is_read(golden: Golden) -> None:
    assert module.read(golden.folder) == golden
    module.write(replace(golden, info=None, disk_only=True))
    assert module.read(golden.folder) == replace(golden, info=None, disk_only=True)


def test_it_is_where_it_is_found(golden: Golden, tmp_path: Path) -> None:
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    found = module.read(moved)
    assert found is not None and found.info is not None
    assert (found.folder, found.info.dir) == (moved, moved)
    assert str(tmp_path) + '"' not in (moved / RECORD).read_text()


@pytest.mark.parametrize("change", ["cut", "list", "another field", "no token", "gone"])
def test_what_is_no_record_of_this_version_is_none(golden: Golden, change: str) -> None:
    path = golden.folder / RECORD
    record = json.loads(path.read_text())
    if change == "another field":
        record["later"] = 1
    elif change == "no token":
        del record["kept"]["token"]
    text = {"cut": path.read_text()[:-9], "list": "[]"}.get(change, json.dumps(record))
    path.unlink()
    if change != "gone":
        path.write_text(text)
    assert module.read(golden.folder) is None


def test_size_use_and_users_are_the_file_system_s_to_say(golden: Golden) -> None:
    os.utime(golden.folder / RECORD, (5, 5))
    assert golden.used == 5
    assert golden.size >= 10_000
    assert not golden.in_use
    os.link(golden.folder / "disk-1", golden.folder / "an-instance-s")
    assert golden.in_use
