from __future__ import annotations

from typing import Any

import pytest

from pytest_lima.lima.params import keep_used

PARAM = {"param": {"src": "/tmp"}}
USES_IT = {"probes": [{"script": "$PARAM_src"}]}


@pytest.mark.parametrize(
    "user",
    [
        {"mounts": [{"location": "{{.Param.src}}"}]},
        {"mounts": [{"location": "/", "mountPoint": "/mnt/{{ .Param.src }}"}]},
        {"portForwards": [{"guestSocket": "/run/{{.Param.src}}/docker.sock"}]},
        {"portForwards": [{"hostSocket": "{{.Param.src}}"}]},
        {"copyToHost": [{"guest": "/x", "host": "{{.Param.src}}"}]},
        {"probes": [{"script": "echo $PARAM_src"}]},
        {"provision": [{"script": "echo $PARAM_src"}]},
        {"provision": [{"mode": "data", "content": "x", "path": "{{.Param.src}}/x"}]},
    ],
)
def test_a_param_whose_user_was_taken_out_is_still_used(user: dict[str, Any]) -> None:
    (entry,) = keep_used({**PARAM, **user}, PARAM)
    assert keep_used({**PARAM, **user}, {**PARAM, "provision": [entry]}) == []


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ({}, {}),
        (PARAM, PARAM),  # nothing has ever used it: limactl says so
        ({**PARAM, "mounts": [{"location": "PARAM_src2 Param.src"}]}, PARAM),
        ({**PARAM, **USES_IT}, {**PARAM, **USES_IT}),
        ({**PARAM, "mounts": "wrong", "provision": [None, "x"]}, PARAM),
        ({"param": "wrong"}, {"param": "wrong"}),
    ],
)  # fmt: skip
def test_others_need_nothing(template: dict[str, Any], filled: dict[str, Any]) -> None:
    assert keep_used(template, filled) == []
