from __future__ import annotations

from typing import Any

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima import reach


def refuse(**content: Any) -> None:
    reach.refuse("my.yaml", {"provision": [], "portForwards": [], **content})


OUTSIDE = [
    ({"copyToHost": [{"guest": "/a", "host": "/b"}]}, "copyToHost writes files on this host"),
    ({"provision": [{"mode": "ansible", "playbook": "x"}]}, "mode ansible runs a playbook"),
    ({"portForwards": [{"guestSocket": "/a", "hostSocket": "/home/me/.bashrc"}]},
     "Lima removes what lies at hostSocket /home/me/.bashrc"),
    ({"portForwards": [{"guestSocket": "/a", "hostSocket": "{{.Dir}}/../x"}]}, "hostSocket"),
    ({"portForwards": [{"guestSocket": "/a", "hostSocket": "{{.Dir}}x"}]}, "hostSocket"),
    ({"portForwards": [{"guestSocket": "/a", "hostSocket": "{{.Home}}/x"}]}, "hostSocket"),
    # The param may be "../../.bashrc".
    ({"portForwards": [{"guestSocket": "/a", "hostSocket": "{{.Dir}}/{{.Param.x}}"}]},
     "hostSocket"),
    ({"portForwards": [{"guestSocket": "/a", "hostSocket": "{{.Dir}}/a", "reverse": True}]},
     "a reverse forward gives the guest a socket of this host"),
    ({"portForwards": [{"guestPort": 80, "hostIP": "0.0.0.0"}]}, "hostIP 0.0.0.0 opens"),
    ({"portForwards": [{"guestPort": 80, "hostIP": "192.0.2.1"}]}, "hostIP 192.0.2.1 opens"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), OUTSIDE)
def test_what_reaches_out_is_refused_with_the_reason(content, reason: str) -> None:
    with pytest.raises(TemplateError, match="^the template my.yaml reaches outside") as caught:
        refuse(**content)
    assert reason in caught.value.seen


def test_all_reasons_are_given_at_once() -> None:
    with pytest.raises(TemplateError, match="copyToHost.*; .*ansible.*; a reverse"):
        refuse(**OUTSIDE[0][0], **OUTSIDE[1][0], **OUTSIDE[-3][0])


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"copyToHost": []},
        {"provision": [{"mode": "system", "script": "x"}, {"script": "y"}]},
        {"portForwards": [{"guestPort": 80}, {"guestPort": 81, "hostIP": "::1"}]},
        {"portForwards": [{"guestSocket": "/a", "hostSocket": "{{.Dir}}/sock/a"}]},
    ],
)
def test_what_stays_inside_is_not(content) -> None:
    refuse(**content)
