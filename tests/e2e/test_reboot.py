"""A reboot ends when the guest is as ready as after its start."""

from __future__ import annotations

import pytest

from pytest_lima import Instance


@pytest.mark.lima
def test_reboot(lima: Instance, lima_docker_host: str) -> None:
    import docker

    def boot_id() -> str:
        return lima.read_text("/proc/sys/kernel/random/boot_id")

    lima.run("echo kept >/var/tmp/kept; echo lost >/run/lost", user="root")
    before = boot_id()
    lima.reboot()
    assert boot_id() != before
    assert lima.run("cat /var/tmp/kept; cat /run/lost", check=False).stdout == "kept\n"
    assert lima.cloud_init_status()["status"] == "done"
    client = docker.DockerClient(base_url=lima_docker_host)
    assert client.ping()
    client.close()
