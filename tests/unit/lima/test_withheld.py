from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from pytest_lima.lima import withheld


def line(raw: dict[str, Any], *decided: str, source: str = "my.yaml", **filled: Any) -> str:
    return withheld.line(source, raw, {**withheld.take_out(raw), **filled}, decided)


def test_mounts_are_named_with_the_ways_to_have_them_and_to_hear_no_more_of_it() -> None:
    mounts = [{"location": "~"}, {"location": "/srv", "mountPoint": "/data", "writable": True}]
    told = line({"mounts": mounts})
    assert told.startswith(
        "the template my.yaml asks for what the VMs of tests don't get: no mount of ~ and "
        "/srv:/data (to have it: --lima-mount=~ --lima-mount=/srv:/data:w, or "
        'mounts=["~", "/srv:/data:w"] in the marker; '
    )
    assert '{"mounts": []}' in told
    assert line({"mounts": mounts}, "mounts") == ""


def test_variables_of_a_mount_that_are_known_are_filled_in() -> None:
    mounts = [{"location": "{{.Home}}/a b"}, {"location": "{{ .Param.dir }}"},
              {"location": "{{.GlobalTempDir}}/lima"}, {"location": "{{.Dir}}/x"}]  # fmt: skip
    told = line({"mounts": mounts, "param": {"dir": "/srv"}})
    assert "no mount of ~/a b and /srv and /tmp/lima and {{.Dir}}/x (" in told
    assert "--lima-mount='~/a b' --lima-mount=/srv --lima-mount=/tmp/lima " in told


def test_the_home_that_each_of_limas_own_templates_mounts_is_not_worth_a_line() -> None:
    assert line({"mounts": [{"location": "~"}]}, source="template:debian") == ""
    assert line({"mounts": [{"location": "~", "writable": True}]}, source="template:debian")
    assert line({"mounts": [{"location": "~"}]})


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"ssh": {"localPort": 60022}}, "no ssh.localPort 60022 ("),
        ({"networks": [{"lima": "shared", "macAddress": "52:55:55:00:00:01"}]},
         "no macAddress 52:55:55:00:00:01 ("),
        ({"propagateProxyEnv": True}, "no propagateProxyEnv ("),
        ({"ssh": {"forwardAgent": True, "forwardX11": True}},
         "no ssh.forwardAgent, ssh.forwardX11 ("),
        ({"ssh": {"loadDotSSHPubKeys": True}}, "no ssh.loadDotSSHPubKeys ("),
        ({"audio": {"device": "default"}, "video": {"display": "cocoa"}},
         "no audio.device, video.display ("),
    ],
)  # fmt: skip
def test_all_else_that_is_taken_out_is_told_too(raw, told: str) -> None:
    assert told in line(raw)
    assert line(raw, *raw) == ""


def test_the_override_that_it_names_is_what_the_template_said() -> None:
    raw = {"propagateProxyEnv": True, "ssh": {"forwardAgent": True, "localPort": 1},
           "video": {"display": "vnc", "vnc": {"display": "127.0.0.1:1"}}}  # fmt: skip
    found = re.search(r"lima_overrides with (\{.*\})\)", line(raw))
    assert found is not None
    assert ast.literal_eval(found[1]) == {
        "propagateProxyEnv": True, "ssh": {"forwardAgent": True}, "video": {"display": "vnc"}
    }  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"mounts": [], "ssh": {"localPort": 0, "forwardAgent": False}, "networks": [{"lima": "x"}]},
        {"mounts": None, "ssh": None, "audio": None, "video": {"display": None}},
        {"video": {"display": "none"}, "audio": {"device": ""}, "propagateProxyEnv": False},
        {"mounts": "text", "ssh": "text", "networks": "text"},
    ],
)
def test_what_asks_for_nothing_is_not_told(raw) -> None:
    assert line(raw) == ""


def test_the_template_itself_stays_as_it_was() -> None:
    raw = {"ssh": {"localPort": 1}, "networks": [{"macAddress": "x"}], "video": {"display": "vnc"}}
    withheld.take_out(raw)
    assert raw == {"ssh": {"localPort": 1}, "networks": [{"macAddress": "x"}],
                   "video": {"display": "vnc"}}  # fmt: skip


def test_python_as_one_writes_it() -> None:
    assert withheld.as_python({"a": ["b", True, None]}) == '{"a": ["b", True, None]}'
    assert ast.literal_eval(withheld.as_python({"a": "it's", "b": '"'})) == {"a": "it's", "b": '"'}
