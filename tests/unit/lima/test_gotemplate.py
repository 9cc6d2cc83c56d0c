from __future__ import annotations

import pytest

from pytest_lima.lima import gotemplate

VALUES = {"UID": "1001", "User": "ann", "Param.dir": "/srv", "Param.empty": ""}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("/run/docker.sock", "/run/docker.sock"),
        ("/run/user/{{.UID}}/docker.sock", "/run/user/1001/docker.sock"),
        ("/run/user/{{ .UID }}/docker.sock", "/run/user/1001/docker.sock"),
        ("/run/user/{{\t.UID\n}}/x", "/run/user/1001/x"),
        ("/run/ {{- .UID -}} /x", "/run/1001/x"),
        ("/run/ {{- .UID }} /x", "/run/1001 /x"),
        ("/run/{{ $.UID }}/x", "/run/1001/x"),
        ("{{.Param.dir}}/{{.User}}{{.Param.empty}}.sock", "/srv/ann.sock"),
        ("/a{{/* why */}}/b", "/a/b"),
        ("/a}}/b", "/a}}/b"),
    ],
)
def test_names_are_replaced_as_go_does(text: str, expanded: str) -> None:
    assert gotemplate.expand(text, VALUES) == expanded


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/run/{{.Other}}/x", "{{.Other}}"),
        ("/run/{{.Param.other}}", "{{.Param.other}}"),
        ("{{.UID | printf `%s`}}", "{{.UID | printf `%s`}}"),
        ('{{if .UID}}/a{{else}}/b{{end}}', "{{if .UID}}"),
        ('{{ env "HOME" }}', '{{ env "HOME" }}'),
        ("{{.}}", "{{.}}"),
        ("{{}}", "{{}}"),
        ("/run/{{.UID", "{{.UID"),
        ("/run/{{.UID}}/{{", "{{"),
        ("{{-.UID}}", "{{-.UID}}"),
    ],
)  # fmt: skip
def test_all_else_is_refused_and_named(text: str, told: str) -> None:
    with pytest.raises(gotemplate.NotANameError) as caught:
        gotemplate.expand(text, VALUES)
    assert str(caught.value) == told


def test_a_param_is_a_value_under_its_name() -> None:
    assert gotemplate.params({"a": "b", "n": 1}) == {"Param.a": "b", "Param.n": "1"}
    assert gotemplate.params(None) == gotemplate.params("text") == {}
