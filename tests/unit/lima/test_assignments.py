from __future__ import annotations

import pytest

from pytest_lima.lima import assignments


@pytest.mark.parametrize(
    ("edit", "value"),
    [
        (".cpus = 2", {"cpus": 2}),
        (' .memory="2GiB" ', {"memory": "2GiB"}),
        (".ssh.forwardAgent = true", {"ssh": {"forwardAgent": True}}),
        (".mounts = []", {"mounts": []}),
        ('.env = {"A": "b"}', {"env": {"A": "b"}}),
        (".cpus = 2 | .arch = null", None),
        (".mounts[0].writable = true", None),
        (".provision += []", None),
        (".cpus = .memory", None),
        ("del(.env)", None),
        (". = {}", None),
        ("", None),
    ],
)
def test_a_plain_assignment_is_understood_and_nothing_else(edit: str, value: object) -> None:
    assert assignments.assigned(edit) == value


def test_the_last_one_counts() -> None:
    made = ['.arch = "x86_64"', '.arch = "aarch64"', ".cpus = 2", "del(.env)"]
    assert assignments.last("arch", made) == "aarch64"
    assert assignments.last("memory", made) is None
    assert assignments.last("arch", []) is None
