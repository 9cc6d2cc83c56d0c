"""What else gives a test a machine, or something in it: the factory, the engines."""

from __future__ import annotations

import pytest


def test_the_factory_makes_further_machines(pytester, fake_lima):
    pytester.makepyfile("""
        import pytest
        import pytest_lima

        def test_two(lima, lima_factory):
            db = lima_factory(name="db", cpus=2)
            web = lima_factory(engine="docker", memory="1GiB")
            assert db.name.endswith("-db") and len({db.name, web.name, lima.name}) == 3
            assert (db.cpus, web.memory) == (2, 1024)
            assert web.docker_host.startswith("unix:///")
            with pytest.raises(pytest_lima.LimaError, match="was started without docker"):
                db.docker_host

        @pytest.mark.parametrize("wrong", [{"name": "Not OK"}, {"engine": "rkt"}, {"cpus": 0}])
        def test_refused(lima_factory, wrong):
            with pytest.raises(pytest_lima.LimaError, match="can't be used|is not accepted"):
                lima_factory(**wrong)
    """)
    pytester.runpytest().assert_outcomes(passed=4)
    assert len(fake_lima.calls("create")) == 3
    fake_lima.assert_clean()


ENGINES = """
    import http.client, socket
    from pathlib import Path
    import pytest
    import pytest_lima

    def ping(address):
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(address.removeprefix("unix://"))
        connection.request("GET", "/_ping")
        said = connection.getresponse().read()
        connection.close()
        return said
"""


def test_fixtures_ask_for_the_engines(pytester, fake_lima):
    """Those of all tests of a spec, whichever comes first, and of no other spec."""
    pytester.makepyfile(
        ENGINES
        + """
    def test_bare(lima):
        assert ping(lima.docker_host) == b"OK"

    def test_docker(lima, lima_docker_env, lima_docker_host):
        assert ping(lima_docker_host) == b"OK"
        assert lima_docker_env == {
            "DOCKER_HOST": lima_docker_host,
            "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": "", "DOCKER_TLS": "",
            "DOCKER_CONTEXT": "", "DOCKER_API_VERSION": "", "BUILDX_BUILDER": "",
            "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": "/var/run/docker.sock",
            "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1", "TC_HOST": "127.0.0.1",
            "TESTCONTAINERS_RYUK_DISABLED": "true",
        }

    def test_containerd(lima_containerd_address):
        assert Path(lima_containerd_address).is_socket()
        assert Path(lima_containerd_address).stat().st_mode & 0o777 == 0o600

    @pytest.mark.lima(cpus=2)
    def test_other_spec(lima):
        with pytest.raises(pytest_lima.LimaError, match="without docker"):
            lima.docker_host
    """
    )
    pytester.runpytest().assert_outcomes(passed=4)
    assert len(fake_lima.calls("create")) == 2
    fake_lima.assert_clean()


def test_what_was_set_for_another_docker_is_out_of_force(pytester, fake_lima, monkeypatch):
    pytest.importorskip("docker")
    for name, value in {
        "DOCKER_HOST": "tcp://192.0.2.1:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_TLS": "1",
        "DOCKER_CERT_PATH": "/nonexistent", "DOCKER_CONTEXT": "other", "TC_HOST": "192.0.2.1",
        "DOCKER_API_VERSION": "1.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    pytester.makepyfile("""
        import contextlib, shutil, subprocess
        import docker, pytest

        @pytest.fixture(autouse=True)
        def environment(lima_docker_env, monkeypatch):
            for name, value in lima_docker_env.items():
                monkeypatch.setenv(name, value)

        def test_docker_py():
            with contextlib.closing(docker.from_env(version="1.41")) as client:
                assert client.ping()

        @pytest.mark.skipif(not shutil.which("docker"), reason="no docker command")
        def test_command(lima_docker_host):
            done = subprocess.run(["docker", "ps"], capture_output=True, text=True)
            assert "ca.pem" not in done.stderr and "other" not in done.stderr
            assert "192.0.2.1" not in done.stderr
    """)
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.OK


def test_the_option_overrules_what_fixtures_ask(pytester, fake_lima):
    pytester.makepyfile(
        ENGINES
        + """
    def test_docker(lima, lima_factory):
        assert ping(lima.docker_host) == ping(lima_factory().docker_host) == b"OK"

    def test_containerd(lima_containerd_address): pass
    """
    )
    result = pytester.runpytest("--lima-engine=docker")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([
        "LimaError: pl-* was started without containerd",
        "  do: ask for it with --lima-engine=containerd, or use the fixture that does",
    ], consecutive=True)  # fmt: skip
    fake_lima.assert_clean()


def test_an_engine_that_never_answers_is_named(pytester, fake_lima, monkeypatch):
    monkeypatch.setenv("PYTEST_LIMA_TIMEOUT", "6")
    fake_lima.scenario("engine-silent")
    pytester.makepyfile("def test_it(lima_docker_host): pass")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        "lima pl-*: * s  waiting for docker", "lima pl-*: failed after *, while waiting for docker",
        "ReadyTimeoutError: the VM is not ready: no answer from docker within * s",
    ])  # fmt: skip
    fake_lima.assert_clean()


def test_a_test_that_is_run_again_counts_once(pytester, fake_lima):
    """As pytest-rerunfailures does it: set up and torn down each time."""
    pytester.makeconftest("""
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            for _ in range(2):
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
    """)
    pytester.makepyfile("""
        import pytest

        names = []

        @pytest.mark.parametrize("number", range(3))
        def test_it(lima, number):
            names.append(lima.name)
            assert names == [lima.name] * len(names) or len(names) == 6
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=3)
    fake_lima.assert_clean()


def test_an_override_of_lima_is_set_up_once_and_ends_before_the_vm(pytester, fake_lima):
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def lima(lima):
            lima.write_text("/etc/prepared", "once")
            yield lima
            print("LAST", lima.read_text("/etc/prepared"))
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lima
        @pytest.mark.parametrize("number", range(2))
        def test_it(lima, number):
            assert lima.read_text("/etc/prepared") == "once"
            lima.write_text("/etc/prepared", "once" if number == 0 else "used")
        """
    )
    result = pytester.runpytest("-s")
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count("LAST") == 1
    result.stdout.fnmatch_lines(["*LAST used"])
    fake_lima.assert_clean()
