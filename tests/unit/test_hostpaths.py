from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_lima.hostpaths import located


def test_every_file_that_a_lima_yaml_names(tmp_path: Path) -> None:
    def template(folder: str) -> dict[str, Any]:
        return {
            "images": [{"location": f"{folder}a.img", "kernel": {"location": f"{folder}vmlinuz"},
                        "initrd": {"location": f"{folder}initrd"}, "arch": "x86_64"}],
            "firmware": {"images": [{"location": f"{folder}fw"}], "legacyBIOS": True},
            "caCerts": {"files": [f"{folder}ca.pem"]},
            "containerd": {"archives": [{"location": f"{folder}c.tgz"}]},
            "mounts": [{"location": f"{folder}src", "writable": True}],
            "cpus": 2,
        }  # fmt: skip

    assert located(template("./"), [tmp_path]) == template(f"{tmp_path}/")


def test_the_first_folder_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    folders = [tmp_path / "a", tmp_path / "b"]
    assert located({"caCerts": {"files": ["x", "y"]}}, folders) == {
        "caCerts": {"files": [f"{tmp_path}/b/x", f"{tmp_path}/a/y"]}
    }


@pytest.mark.parametrize(
    "location",
    ["https://example.invalid/a.img", "/a.img", "~/a.img", "{{.Home}}/src", "", None, 3],
)
def test_what_is_no_relative_path_stays(location: object) -> None:
    template = {"images": [{"location": location}], "mounts": [{"location": location}]}
    assert located(template, ["/elsewhere"]) == template


@pytest.mark.parametrize("value", [None, "x", ["x"], 3, {"x": 1}])
def test_what_is_malformed_stays_for_others_to_refuse(value: object) -> None:
    for template in (value, {"images": value}, {"images": [value]}, {"mounts": [value]}):
        assert located(template, ["/elsewhere"]) == template


def test_path_objects() -> None:
    assert located({"mounts": [{"location": Path("src")}]}, ["/here"]) == {
        "mounts": [{"location": "/here/src"}]
    }
