from __future__ import annotations

import socket

import pytest

from pytest_lima.errors import StartError
from pytest_lima.lima import hostports


@pytest.mark.parametrize(
    ("rule", "ports"),
    [
        ({"guestPort": 80, "hostPort": 8080}, (8080,)),
        ({"guestPort": 80}, (80,)),
        ({"guestPortRange": [80, 82], "hostPortRange": [8080, 8082]}, (8080, 8081, 8082)),
        ({"guestPortRange": [80, 81]}, (80, 81)),
        ({"guestPortRange": [1, 65535]}, ()),  # whatever it listens on
        ({"guestPort": 80, "ignore": True}, ()),
        ({"guestPort": 80, "hostSocket": "x.sock"}, ()),
        ({"guestSocket": "/a", "hostPort": 8080}, (8080,)),
        ({"guestPortRange": [2, 1]}, ()),
        ({"guestPortRange": ["a", "b"], "hostPort": "x"}, ()),
        ("text", ()),
    ],
)
def test_the_ports_that_a_rule_names(rule: object, ports: tuple[int, ...]) -> None:
    assert hostports.of_forwards({"portForwards": [rule, rule]}) == ports


def test_the_port_of_ssh() -> None:
    assert hostports.of_ssh({"ssh": {"localPort": 60022}}) == 60022
    for none in ({}, {"ssh": None}, {"ssh": {}}, {"ssh": {"localPort": None}}, {"ssh": "text"}):
        assert hostports.of_ssh(none) == 0


def test_a_port_that_somebody_has_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert list(hostports.taken([port])) == [port]
        with pytest.raises(StartError, match=f"port {port} of this host, which pl-1") as caught:
            hostports.require_free("pl-1", port)
        assert "lima.ssh_port" in str(caught.value)
        assert "in use" in str(caught.value)
    hostports.require_free("pl-1", port)
    hostports.require_free("pl-1", 0)
    assert list(hostports.taken([70000])) == [70000]
