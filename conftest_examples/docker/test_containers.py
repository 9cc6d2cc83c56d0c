"""Containers in a VM of the tests' own: no daemon on the host, nothing left behind."""

import pytest

pytestmark = pytest.mark.lima


def test_a_container_says_hello(docker_client, image):
    output = docker_client.containers.run(image, ["/bin/busybox", "echo", "hello"], remove=True)
    assert output == b"hello\n"


def test_a_privileged_container_harms_nobody(docker_client, image, lima):
    docker_client.containers.run(
        image,
        ["/bin/busybox", "sh", "-c", "echo 1 >/proc/sys/kernel/sysrq"],
        privileged=True,
        remove=True,
    )
    assert lima.read_text("/proc/sys/kernel/sysrq") == "1\n"
