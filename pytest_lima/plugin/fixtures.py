"""The fixtures. The first paragraph of each is what ``pytest --fixtures`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima.engines import ENGINES
from pytest_lima.plugin.marks import Ask
from pytest_lima.plugin.session import session_key
from pytest_lima.settings import Settings
from pytest_lima.spec import machine_spec

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

    Override it in a conftest.py to pin one for the tests beside it. When the run names
    several templates, each test runs on each of those instead.
    """
    return lima_settings.templates[0]


@pytest.fixture(scope="session")
def lima_overrides() -> Mapping[str, Any]:
    """A mapping that is merged into the template, such as ``{"cpus": 4}``.

    Override it in a conftest.py. Mappings in it are merged, everything else is replaced.
    """
    return {}


@pytest.fixture(scope="session")
def lima(
    request: pytest.FixtureRequest, lima_template: str, lima_overrides: Mapping[str, Any]
) -> Iterator[Instance]:
    """A real Linux VM, started once for all tests that want the same one.

    It is ready: cloud-init has ended without errors, SSH answers, and so do the container
    engines that the collected tests ask for by their fixtures. It is deleted after the last
    test that wants it. ``@pytest.mark.lima(cpus=4, …)`` on a test asks for one of another
    kind from this same fixture.
    """
    session = request.config.stash[session_key]
    asked = request.param if hasattr(request, "param") else session.asked_by_name()
    if not isinstance(asked, Ask):
        raise TemplateError(
            f"the `lima` fixture can't take {asked!r} as a parameter",
            remedy="give the spec to the marker, as in @pytest.mark.lima(cpus=4)",
        )
    yield session.acquire(asked, lima_template, lima_overrides)
    session.release(asked)


@pytest.fixture
def lima_fresh(
    request: pytest.FixtureRequest, lima_template: str, lima_overrides: Mapping[str, Any]
) -> Iterator[Instance]:
    """A Linux VM for this test alone, in the state in which it first was ready.

    It wakes up from a kept one within seconds where warm start works, and boots elsewhere. The
    test's ``@pytest.mark.lima`` says what it is.
    """
    session = request.config.stash[session_key]
    yield session.create_fresh(request.node, lima_template, lima_overrides)
    session.release_fresh()


@pytest.fixture(scope="session")
def lima_factory(
    request: pytest.FixtureRequest, lima_template: str, lima_overrides: Mapping[str, Any]
) -> Iterator[LimaFactory]:
    """Starts further VMs: ``lima_factory(name="db", memory=4)``; they end with the session.

    Takes the marker's arguments except ``fresh``, ``name`` for a part of the host name, and
    ``engine`` to have ``docker``, ``containerd`` or ``both`` answer in it.
    """
    session = request.config.stash[session_key]

    def start(*, name: str | None = None, engine: str | None = None, **spec: Any) -> Instance:
        if engine is not None and engine not in ENGINES:
            raise TemplateError(
                f"engine={engine!r} is not accepted; give one of {', '.join(ENGINES)}"
            )
        asked = machine_spec(**spec).located("", request.config.invocation_params.dir)
        return session.create(asked, name, engine, lima_template, lima_overrides)

    yield start
    session.release_made()


@pytest.fixture(scope="session")
def lima_docker_host(lima: Instance) -> str:
    """``unix://…`` address on this host of the VM's Docker, which answers."""
    return lima.docker_host


@pytest.fixture(scope="session")
def lima_docker_env(lima_docker_host: str) -> dict[str, str]:
    """Environment variables that point docker tools and Testcontainers at the VM's Docker.

    Set all of them for a child process, or with ``monkeypatch.setenv``: ``DOCKER_HOST``, the
    ``TESTCONTAINERS_*`` that go with it, and as empty texts what may be set for another Docker.
    Testcontainers' own cleaner is off, as the VM goes with all that is in it.
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
    """Path on this host of the socket of the VM's containerd, for ``CONTAINERD_ADDRESS``."""
    return lima.containerd_address
