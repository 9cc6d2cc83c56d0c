from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima import keys
from pytest_lima.lima.keys import LIMA_2_2, Keys


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"cpuz": 2}, "cpuz (did you mean cpus?)"),
        ({"CPUs": 2}, "CPUs (did you mean cpus?)"),
        ({"portForward": []}, "portForward (did you mean portForwards?)"),
        ({"xyzzy": 2}, "xyzzy"),
        ({"ssh": {"localport": 1}}, "ssh.localport (did you mean localPort?)"),
        ({"images": [{"location": "a"}, {"locaton": "b"}]},
         "images[1].locaton (did you mean location?)"),
        ({"images": [{"kernel": {"cmdLine": ""}}]},
         "images[0].kernel.cmdLine (did you mean cmdline?)"),
        ({"mounts": [{"location": "/", "9p": {"msiz": 1}}]},
         "mounts[0].9p.msiz (did you mean msize?)"),
        ({"provision": [{"scirpt": "x"}]}, "provision[0].scirpt (did you mean script?)"),
        ({"provision": [{"file": {"ulr": "x"}}]}, "provision[0].file.ulr (did you mean url?)"),
        ({"containerd": {"users": True}}, "containerd.users (did you mean user?)"),
        ({"video": {"vnc": {"x-display": 1}}}, "video.vnc.x-display (did you mean display?)"),
        ({"cpuz": 2, "user": {"nam": "x"}},
         "cpuz (did you mean cpus?); user.nam (did you mean name?)"),
        ({"x": 1}, "x"),
    ],
)  # fmt: skip
def test_keys_that_lima_would_ignore(given: dict[str, Any], seen: str) -> None:
    with pytest.raises(TemplateError) as caught:
        LIMA_2_2.check("my.yaml", given)
    assert caught.value.what == "my.yaml has keys that Lima doesn't know, and would ignore"
    assert caught.value.seen == seen


@pytest.mark.parametrize(
    "given",
    [
        {"env": {"any": "x"}, "param": {"any": "x"}, "hostResolver": {"hosts": {"any": "x"}}},
        {"vmOpts": {"qemu": {"any": 1}, "any": {}}, "osOpts": {"any": {}}, "cpuType": {"any": "x"}},
        {"base": "x"}, {"base": ["x", {"url": "y", "digest": "z"}]}, {"additionalDisks": ["a"]},
        {"provision": [{"file": "x"}]}, {"ssh": None}, {"images": "wrong"},
        {"dns": ["1.1.1.1"]}, {"images": {"wrong": 1}},
        {"x-common": {"any": 1}},
    ],
)  # fmt: skip
def test_keys_that_are_lima_s_or_the_author_s(given: dict[str, Any]) -> None:
    LIMA_2_2.check("my.yaml", given)


def test_a_newer_lima_says_itself_which_keys_it_has() -> None:
    schema = {"$defs": {
        "LimaYAML": {"properties": {"cpus": {"type": "integer"}, "ssh": {"$ref": "#/$defs/SSH"},
                                    "disks": {"oneOf": [{"items": {"$ref": "#/$defs/Disk"}}]}}},
        "SSH": {"properties": {"new": {"type": "string"}}},
        "Disk": {"properties": {"name": {"type": "string"}}},
    }}  # fmt: skip
    found = keys.of_schema(json.dumps(schema))
    assert found == Keys({"": frozenset({"cpus", "ssh", "disks"}), "ssh": frozenset({"new"}),
                          "disks[]": frozenset({"name"})})  # fmt: skip
    for unreadable in ("", "[]", "{}", '{"$defs": {"LimaYAML": {"$ref": "x"}}}'):
        assert keys.of_schema(unreadable) is LIMA_2_2


@pytest.mark.parametrize(
    ("version", "newer"),
    [("2.0.0", False), ("2.2.0", False), ("2.2.9-3-gabc", False), ("2.3.0", True), ("3.0", True),
     ("unknown", False)],
)  # fmt: skip
def test_which_lima_is_newer(version: str, newer: bool) -> None:
    assert keys.is_newer(version) is newer
