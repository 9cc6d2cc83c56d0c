"""Clean state: nothing of what an earlier test has left is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_lima import Instance

MESS = """
echo left >/root/left; echo left >/run/left; echo left >/etc/left.conf
systemd-run --unit=left sleep 1000
useradd left; hostname left; date -s @1000000000
"""
LEFT = """
ls /root/left /run/left /etc/left.conf; systemctl is-active left; id left
pgrep -x sleep; hostname | grep -x left; docker ps -aq
"""


def mess_up(vm: Instance) -> None:
    vm.run(MESS, user="root", check=False)


def assert_clean(vm: Instance) -> None:
    said = vm.run(LEFT + "true", user="root", check=False).stdout.replace("inactive\n", "")
    assert said == ""
    assert vm.run("hostname").stdout == f"lima-{vm.name}\n"


@pytest.mark.lima(fresh=True)
class TestFresh:
    @pytest.mark.parametrize("number", range(3))
    def test_each_test_finds_it_as_it_was(
        self, lima: Instance, lima_docker_host: str, number: int
    ) -> None:
        import docker

        assert_clean(lima)
        client = docker.DockerClient(base_url=lima_docker_host)
        assert client.ping()
        client.close()
        mess_up(lima)


def test_a_vm_of_its_own(lima_fresh: Instance) -> None:
    assert_clean(lima_fresh)


def test_reset_in_the_middle_of_a_test(lima_fresh: Instance, reboot: Callable[..., None]) -> None:
    mess_up(lima_fresh)
    lima_fresh.reset()
    assert_clean(lima_fresh)
    assert lima_fresh.status == "Running"
    reboot(lima_fresh)
    assert_clean(lima_fresh)
