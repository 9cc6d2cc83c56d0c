"""The fixtures. The first paragraph of each is what ``pytest --fixtures`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Unpack

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima.engines import named
from pytest_lima.plugin.marks import Ask
from pytest_lima.plugin.session import session_key
from pytest_lima.settings import Settings
from pytest_lima.spec import MachineArguments, PathText, machine_spec, require_known

if TYPE_CHECKING:
    from pytest_lima.instance import Instance
    from pytest_lima.ownership.pool import LimaFactory

# What belongs to a DOCKER_HOST that was set before. To docker's own clients, docker-py and
# Testcontainers, an empty one is as good as none.
_OF_ANOTHER_DOCKER = ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS", "DOCKER_CONTEXT",
                      "DOCKER_API_VERSION", "BUILDX_BUILDER")  # fmt: skip


@pytest.fixture(scope="session")
def lima_settings(request: pytest.FixtureRequest) -> Settings:
    """The resolved ``--lima-…`` options of this run, read-only."""
    return request.config.stash[session_key].settings


@pytest.fixture(scope="session")
def lima_template(lima_settings: Settings) -> str:
    """The template of the VM: a ``template:`` name, a path or a URL.

    Override it in a conftest.py to choose one for that folder's tests. When the run has several
    templates, each test runs on each of them instead.
    """
    return lima_settings.templates[0]


@pytest.fixture(scope="session")
def lima_overrides() -> Mapping[str, Any]:
    """A mapping that is merged into the template, such as ``{"cpus": 4}``.

    Override it in a conftest.py. Mappings are merged; all other values are replaced.
    """
    return {}


@pytest.fixture(scope="session")
def lima(
    request: pytest.FixtureRequest, lima_template: PathText, lima_overrides: Mapping[str, Any]
) -> Iterator[Instance]:
    """A real Linux VM that is ready, shared by all tests with the same spec.

    Ready means that cloud-init has ended without errors, and that SSH and the container engines
    that the collected tests use answer. The VM is deleted after the last test that uses it. A
    test with ``@pytest.mark.lima(cpus=4, …)`` gets a VM with that spec.
    """
    session = request.config.stash[session_key]
    asked = request.param if hasattr(request, "param") else session.asked_by_name()
    if not isinstance(asked, Ask):
        raise TemplateError(
            f"the `lima` fixture doesn't accept the parameter {asked!r}",
            remedy="pass the spec to the marker, as in @pytest.mark.lima(cpus=4)",
        )
    yield session.acquire(asked, lima_template, lima_overrides)
    session.release(asked)


@pytest.fixture
def lima_fresh(
    request: pytest.FixtureRequest, lima_template: PathText, lima_overrides: Mapping[str, Any]
) -> Iterator[Instance]:
    """A Linux VM for this test alone, in its first ready state.

    It resumes from a golden image within seconds where warm start works; elsewhere it boots. The
    arguments of the test's ``@pytest.mark.lima`` are its spec. It has the engines that this test
    uses.
    """
    session = request.config.stash[session_key]
    yield session.create_fresh(request.node, lima_template, lima_overrides)
    session.release_fresh()


@pytest.fixture(scope="session")
def lima_factory(
    request: pytest.FixtureRequest, lima_template: PathText, lima_overrides: Mapping[str, Any]
) -> Iterator[LimaFactory]:
    """Starts further VMs: ``lima_factory(name="db", memory=4)``. They end with the session.

    Accepts the marker's arguments except ``fresh``, and ``name``, which becomes part of the host
    name.
    """
    session = request.config.stash[session_key]

    def start(
        *, name: str | None = None, engine: str | None = None, **spec: Unpack[MachineArguments]
    ) -> Instance:
        require_known("lima_factory", spec, own=("name", "engine"))
        asked = machine_spec(**spec).located("", request.config.invocation_params.dir)
        engines = None if engine is None else named(engine)
        return session.create(asked, name, engines, lima_template, lima_overrides)

    yield start
    session.release_made()


@pytest.fixture(scope="session")
def lima_docker_host(lima: Instance) -> str:
    """Address of the VM's Docker on this host, ``unix://…``."""
    return lima.docker_host


@pytest.fixture(scope="session")
def lima_docker_env(lima_docker_host: str) -> dict[str, str]:
    """Environment variables that point docker tools and Testcontainers at the VM's Docker.

    Set all of them for a child process, or with ``monkeypatch.setenv``: ``DOCKER_HOST``, the
    ``TESTCONTAINERS_*`` variables for it, and as empty strings those that may be set for another
    Docker. Testcontainers' own cleanup (Ryuk) is off, as all containers end with the VM.
    """
    return {
        "DOCKER_HOST": lima_docker_host,
        **dict.fromkeys(_OF_ANOTHER_DOCKER, ""),
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": "/var/run/docker.sock",
        "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        "TC_HOST": "127.0.0.1",  # goes before it where it's set, even if empty
        "TESTCONTAINERS_RYUK_DISABLED": "true",
    }


@pytest.fixture(scope="session")
def lima_containerd_address(lima: Instance) -> str:
    """Path on this host of the VM's containerd socket, for ``CONTAINERD_ADDRESS``."""
    return lima.containerd_address
