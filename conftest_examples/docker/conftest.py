"""Docker's Python SDK on the VM's Docker. It needs no Docker on this host."""

import io
import tarfile

import docker
import pytest


@pytest.fixture(scope="session")
def docker_client(lima_docker_host):
    client = docker.DockerClient(base_url=lima_docker_host, timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(docker_client, lima):
    """An image made of the guest's busybox, for machines without a registry.

    With one, ``docker_client.images.pull("alpine")`` does.
    """
    program = lima.read_bytes("/bin/busybox")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    docker_client.api.import_image_from_data(archive.getvalue(), repository="example", tag="1")
    return "example:1"
