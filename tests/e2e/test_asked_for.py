"""What a template or an override asks for is in the guest."""

from __future__ import annotations

import pytest
import yaml

from pytest_lima import Instance


@pytest.mark.lima
def test_the_host_has_its_name_in_a_plain_guest(lima: Instance) -> None:
    filled = yaml.safe_load((lima.dir / "lima.yaml").read_text())
    assert filled["plain"] is True
    assert lima.run("getent hosts host.lima.internal").stdout.split()[0] == "192.168.5.2"


@pytest.mark.lima(
    overrides={
        "env": {"APP_MODE": "staging"},
        "hostResolver": {"hosts": {"db.test": "10.1.2.3"}},
        "timezone": "Asia/Tokyo",
    },
)
def test_what_overrides_ask_for_is_there(lima: Instance) -> None:
    assert lima.run("echo $APP_MODE").stdout == "staging\n"
    assert lima.run("getent hosts db.test").stdout.split() == ["10.1.2.3", "db.test"]
    assert lima.run("getent hosts host.lima.internal").stdout.split()[0] == "192.168.5.2"
    assert lima.run("cat /etc/timezone || readlink /etc/localtime").stdout.strip().endswith("Tokyo")
