"""Docker and containerd in the VM, used from the host by their own clients."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from pytest_lima import Instance

pytestmark = pytest.mark.lima


@pytest.fixture(scope="module")
def busybox(lima: Instance) -> bytes:
    """A root file system of one static program, so that no registry is needed."""
    program = lima.read_bytes("/usr/bin/busybox")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def client(lima_docker_host: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=lima_docker_host, timeout=120)
    yield client
    client.close()


def test_a_container_through_the_docker_sdk(
    lima: Instance, client: docker.DockerClient, busybox: bytes
) -> None:
    assert client.ping()
    client.api.import_image_from_data(busybox, repository="e2e", tag="1")
    output = client.containers.run("e2e:1", ["/bin/busybox", "uname", "-n"], hostname="inside",
                                   remove=True)  # fmt: skip
    assert output == b"inside\n"
    # It is the guest's Docker, not one of the host's.
    assert client.info()["Name"] == lima.run("hostname").stdout.strip()


def test_docker_s_own_command(lima_docker_env: dict[str, str]) -> None:
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Os}}"],
        env={**os.environ, **lima_docker_env},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "linux\n"


def test_ctr(lima_containerd_address: str) -> None:
    def ctr(*args: str) -> str:
        argv = ["ctr", "--address", lima_containerd_address, *args]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    assert "Server:" in ctr("version")
    ctr("namespaces", "create", "e2e")
    assert "e2e" in ctr("namespaces", "list", "--quiet").split()


def test_sockets_are_private(lima_docker_host: str, lima_containerd_address: str) -> None:
    for path in (Path(lima_docker_host.removeprefix("unix://")), Path(lima_containerd_address)):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len(str(path)) < 104
