from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima import reach


def refuse(**content: Any) -> None:
    reach.refuse("my.yaml", {"provision": [], "portForwards": [], **content})


def socket(path: str, **more: Any) -> dict[str, Any]:
    return {"portForwards": [{"guestSocket": "/a", "hostSocket": path, **more}]}


def host_ip(address: object, **more: Any) -> dict[str, Any]:
    return {"portForwards": [{"guestPort": 80, "hostIP": address, **more}]}


OUTSIDE = [
    ({"copyToHost": [{"guest": "/a", "host": "/b"}]}, "copyToHost writes files on this host"),
    ({"provision": [{"mode": "ansible", "playbook": "x"}]}, "mode ansible runs a playbook"),
    (socket("/home/me/.bashrc"), "Lima removes what lies at hostSocket /home/me/.bashrc"),
    (socket("{{.Dir}}/../x"), "hostSocket"),
    (socket("{{.Dir}}/sock/../../x"), "hostSocket"),
    (socket("{{.Dir}}x"), "hostSocket"),
    (socket("{{.Dir}}"), "hostSocket"),
    (socket("{{.Dir}}/"), "hostSocket"),
    (socket("{{.Home}}/x"), "hostSocket"),
    (socket("{{ .Home }}/x"), "hostSocket"),
    (socket("{{.TempDir}}/x"), "hostSocket"),
    (socket("{{.GlobalTempDir}}/x"), "hostSocket"),
    (socket("{{.LimaHome}}/other/sock/x"), "hostSocket"),
    (socket("../../x"), "hostSocket"),
    (socket("sock/../../../x"), "hostSocket"),
    (socket("..", ignore=True), "hostSocket"),
    (socket("{{if true}}x{{end}}"), "hostSocket"),
    (socket("{{.Dir}}/{{.Param.x}}"), "hostSocket"),
    ({**socket("{{.Dir}}/{{.Param.x}}"), "param": {"x": "../../.bashrc"}}, "hostSocket"),
    ({**socket("{{.Param.x}}"), "param": {"x": "/home/me/.bashrc"}}, "hostSocket"),
    (socket("{{.Dir}}/a", reverse=True), "a reverse forward gives the guest a socket of this host"),
    (host_ip("0.0.0.0"), "hostIP 0.0.0.0 opens the guest to the network"),
    (host_ip("192.0.2.1"), "hostIP 192.0.2.1 opens"),
    (host_ip("128.0.0.1"), "hostIP 128.0.0.1 opens"),
    (host_ip("::"), "hostIP :: opens"),
    (host_ip("0:0:0:0:0:0:0:0"), "opens"),
    (host_ip("::ffff:0.0.0.0"), "opens"),
    (host_ip("::ffff:192.0.2.1"), "opens"),
    (host_ip("0.0.0.0", ignore=True, static=True), "opens"),
    *((host_ip(odd), "is no IP address, such as 127.0.0.1")
      for odd in ("localhost", "127.1", "0", 0, "0x7f.0.0.1", "127.0.0.01", " 127.0.0.1", "::1%lo",
                  "127.0.0.1/8", "*", ["127.0.0.1"], True)),
    ({"base": "template:_images/debian"}, "base in the overrides"),
    ({"provision": [{"mode": "data", "file": "/etc/shadow"}]}, "provision with file"),
    ({"probes": [{"file": {"url": "x.sh"}}]}, "probes with file"),
    *(({"video": {"display": "vnc", "vnc": {"display": where}}}, "video.vnc.display")
      for where in ("0.0.0.0:0", ":0", "[::]:1,to=9", "192.0.2.1:5", "unix:/home/me/.bashrc")),
    ({"video": {"display": "vnc=:1"}}, "video.vnc.display"),
    ({"audio": {"device": "wav,path=/home/me/.bashrc"}}, "audio.device wav writes a file"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), OUTSIDE)
def test_what_reaches_out_is_refused_with_the_reason(content, reason: str) -> None:
    with pytest.raises(TemplateError, match="^the template my.yaml reaches outside") as caught:
        refuse(**content)
    assert reason in caught.value.seen
    assert caught.value.remedy


def test_all_reasons_are_given_at_once_and_the_one_override_that_lifts_them() -> None:
    content = {
        "copyToHost": [{"guest": "/a", "host": "/b"}],
        "portForwards": [
            {"guestPort": 80, "hostIP": "0.0.0.0"},
            {"guestPort": 81, "ignore": False},
            *socket("/x", reverse=True)["portForwards"],
        ],
        "provision": [{"mode": "ansible"}],
    }
    with pytest.raises(TemplateError, match=r"copyToHost.*; .*ansible.*; hostIP.*; a reverse") as c:
        refuse(**content)
    assert c.value.remedy.startswith("take that entry out of a copy of the template")
    assert lift_of(c.value) == {
        "copyToHost": [], "portForwards": [{"guestPort": 81, "ignore": False}]
    }  # fmt: skip


def lift_of(error: TemplateError) -> Any:
    """The override that an error names, as a reader would copy it."""
    found = re.search(r"overrides=(\{.*\}) in the marker", error.remedy or "")
    return ast.literal_eval(found[1]) if found else None


@pytest.mark.parametrize(
    "content", [content for content, _ in OUTSIDE if {"base", "provision", "probes"} - {*content}
                == {"base", "provision", "probes"}]
)  # fmt: skip
def test_the_override_that_an_error_names_lifts_it(content) -> None:
    with pytest.raises(TemplateError) as caught:
        refuse(**content)
    lift = lift_of(caught.value)
    assert lift
    refuse(**{**content, **lift})


def test_an_override_that_would_fill_the_screen_takes_all_of_them_out() -> None:
    rules = [{"guestPort": port, "hostPort": port + 1} for port in range(1000, 1050)]
    with pytest.raises(TemplateError) as caught:
        refuse(portForwards=[*rules, *host_ip("0.0.0.0")["portForwards"]])
    assert lift_of(caught.value) == {"portForwards": []}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"copyToHost": []},
        {"copyToHost": None, "base": [], "video": None, "audio": {"device": None}},
        {"provision": [{"mode": "system", "script": "x"}, {"script": "y"}]},
        {"provision": [{"mode": "data", "content": "x", "file": None}]},
        {"portForwards": [{"guestPort": 80}, {"guestPort": 81, "hostIP": "::1"}]},
        *(host_ip(address) for address in ("127.0.0.1", "127.0.0.2", "127.255.255.254", "::1",
                                           "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "", None)),
        host_ip("0.0.0.0", ignore=True),
        *(socket(path) for path in (
            "{{.Dir}}/sock/a", "{{ .Dir }}/sock/a", "{{- .Dir -}}/sock/a", "app.sock", "a/b.sock",
            "./app.sock", "{{.Dir}}/sock/../app.sock", "../app.sock", "{{.Name}}.sock",
            "{{.LimaHome}}/{{.Instance}}/sock/a", "{{.User}}-{{.UID}}.sock", "")),
        {**socket("{{.Dir}}/{{.Param.x}}"), "param": {"x": "app.sock"}},
        {"video": {"display": "none", "vnc": {"display": "0.0.0.0:0"}}},
        *({"video": {"display": "vnc", "vnc": {"display": where}}}
          for where in ("127.0.0.1:0,to=9", "localhost:5", "[::1]:1", "none", None)),
        {"video": {"display": "gtk,gl=on"}, "audio": {"device": "pa"}},
    ],
)  # fmt: skip
def test_what_stays_inside_is_not(content) -> None:
    refuse(**content)
