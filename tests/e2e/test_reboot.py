"""A reboot ends when the guest is as ready as after its start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_lima import Instance


@pytest.mark.lima
def test_reboot(lima: Instance, lima_docker_host: str, reboot: Callable[..., None]) -> None:
    import docker

    def boot_id() -> str:
        return lima.read_text("/proc/sys/kernel/random/boot_id")

    before = boot_id()
    leave = "echo kept >/var/tmp/kept; echo lost >/run/lost"
    reboot(lima, lambda: lima.run(leave, user="root"))
    assert boot_id() != before
    assert lima.run("cat /var/tmp/kept; cat /run/lost", check=False).stdout == "kept\n"
    assert lima.cloud_init_status()["status"] == "done"
    client = docker.DockerClient(base_url=lima_docker_host)
    assert client.ping()
    client.close()
