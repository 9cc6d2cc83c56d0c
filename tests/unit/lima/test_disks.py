from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima import disks


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (None, ()),
        ([], ()),
        (["data"], ("data",)),
        ([{"name": "data", "format": True}, "more"], ("data", "more")),
        ("text", ()),
    ],
)
def test_the_names_of_both_forms(entries: object, names: tuple[str, ...]) -> None:
    assert disks.names({"additionalDisks": entries}) == names


def test_a_disk_that_is_there_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "_disks" / "data"
    folder.mkdir(parents=True)
    (folder / "datadisk").touch()
    disks.require("my.yaml", ["data"], tmp_path)
    disks.require("my.yaml", [], tmp_path)


def test_one_that_is_missing_is_refused_with_both_ways_on(tmp_path: Path) -> None:
    with pytest.raises(TemplateError) as caught:
        disks.require("my.yaml", ["data", "more"], tmp_path)
    message = str(caught.value)
    assert message.startswith(
        "the template my.yaml wants a disk that isn't there: data, more\n"
        f"  seen: additionalDisks: no {tmp_path}/_disks/data"
    )
    assert 'overrides={"additionalDisks": []}' in message
    assert f"LIMA_HOME={tmp_path} limactl disk create data --size=10GiB && " in message
