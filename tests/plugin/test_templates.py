"""What a template asks for is there in the VM, or the run says why not and what to do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest


def run(pytester, template: str, *args: str, code: str = "def test_it(lima): pass"):
    pytester.makepyfile(code)
    return pytester.runpytest(f"--lima-template={template}", *args)


PLAIN = """
    import yaml

    def test_it(lima):
        filled = yaml.safe_load((lima.dir / "lima.yaml").read_text())
        assert filled["plain"] is {plain}
"""


@pytest.mark.parametrize(
    ("keys", "args", "plain"),
    [
        ({}, (), True),
        ({"env": {"APP_MODE": "staging"}}, (), False),
        ({"hostResolver": {"hosts": {"db.test": "10.1.2.3"}}}, (), False),
        ({}, ('--lima-set=.env.MODE = "staging"',), False),
        ({}, ("--lima-set=.cpus = 1",), True),
        ({}, ("--lima-mount=/srv:/mnt/srv",), False),
    ],
)
def test_plain_mode_only_where_nothing_asks_for_more(pytester, fake_lima, keys, args, plain):
    template = fake_lima.template(keys=keys)
    run(pytester, template, *args, code=PLAIN.format(plain=plain)).assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_what_overrides_ask_for_counts_too(pytester, fake_lima):
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def lima_overrides():
            return {"env": {"APP_MODE": "staging"}}
    """)
    result = run(pytester, fake_lima.template(), code=PLAIN.format(plain=False))
    result.assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_several_vms_of_a_template_that_names_an_ssh_port(pytester, fake_lima):
    template = fake_lima.template(keys={"ssh": {"localPort": 60022}})
    result = run(
        pytester,
        template,
        code="""
        import yaml

        def test_it(lima, lima_factory):
            other = lima_factory()
            for vm in (lima, other):
                filled = yaml.safe_load((vm.dir / "lima.yaml").read_text())
                assert filled["ssh"]["localPort"] == 0
            assert lima.ssh_port != other.ssh_port
    """,
    )
    result.assert_outcomes(passed=1)
    warnings = [line for line in result.outlines if "ssh.localPort 60022" in line]
    assert len(warnings) == 1
    assert "lima.ssh_port" in warnings[0]
    fake_lima.assert_clean()


def test_an_ssh_port_that_is_asked_for_and_taken_is_named_at_once(pytester, fake_lima):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pytester.makeconftest(f"""
            import pytest

            @pytest.fixture(scope="session")
            def lima_overrides():
                return {{"ssh": {{"localPort": {port}}}}}
        """)
        result = run(pytester, fake_lima.template())
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        f"StartError: port {port} of this host, which pl-* is to have for SSH, can't be had",
        "  seen: *in use*",
        "  do: leave ssh.localPort out: *lima.ssh_port*",
    ])  # fmt: skip
    assert fake_lima.calls("create") == []
    assert "--lima-accel" not in result.stdout.str()
    fake_lima.assert_clean()


def test_a_port_that_can_t_be_forwarded_is_told(pytester, fake_lima):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        template = fake_lima.template(keys={"portForwards": [{"guestPort": 80, "hostPort": port}]})
        result = run(pytester, template)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        f"lima warning: port {port} of this host can't be forwarded to pl-*: *in use*"
    )
    fake_lima.assert_clean()


ARCH = """
    import platform
    import yaml

    def test_it(lima):
        filled = yaml.safe_load((lima.dir / "lima.yaml").read_text())
        assert filled["arch"] == lima.arch == "{arch}"
"""


@pytest.mark.parametrize(
    ("args", "arch"),
    [((), "aarch64"), (("--lima-arch=x86_64",), "x86_64"), (("--lima-vmtype=qemu",), "aarch64")],
)
def test_the_architecture_is_the_templates_unless_an_option_says_otherwise(
    pytester, fake_lima, args, arch
):
    template = fake_lima.template(keys={"arch": "aarch64"})
    run(pytester, template, *args, code=ARCH.format(arch=arch)).assert_outcomes(passed=1)
    (start,) = fake_lima.calls("start")
    assert f"QEMU_SYSTEM_{arch.upper()}" in start.env
    fake_lima.assert_clean()


@pytest.mark.parametrize(
    ("vmtype", "what"),
    [("wsl2", "HostError: vmType wsl2 is none that pytest-lima can run"),
     pytest.param("vz", "HostError: vmtype vz exists on macOS only",
                  marks=pytest.mark.skipif("sys.platform == 'darwin'"))],
)  # fmt: skip
def test_a_driver_that_isn_t_here_is_refused_and_an_option_lifts_that(
    pytester, fake_lima, monkeypatch, vmtype, what
):
    monkeypatch.delenv("PYTEST_LIMA_VMTYPE")
    template = fake_lima.template(keys={"vmType": vmtype})
    result = run(pytester, template)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([what, "  do: take --lima-vmtype=qemu, *"])
    assert fake_lima.calls("create") == []
    run(pytester, template, "--lima-missing=skip").assert_outcomes(skipped=1)
    run(pytester, template, "--lima-vmtype=qemu").assert_outcomes(passed=1)
    fake_lima.assert_clean()


@pytest.mark.parametrize("disk", ["data", {"name": "data"}])
def test_a_disk_that_nobody_has_made_is_refused_before_anything_is_made(pytester, fake_lima, disk):
    template = fake_lima.template(keys={"additionalDisks": [disk]})
    result = run(pytester, template)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        "TemplateError: the template * wants a disk that isn't there: data",
        "  do: do without it by *; or make it, *: LIMA_HOME=* limactl disk create data --size=*",
    ])  # fmt: skip
    assert fake_lima.calls("create") == fake_lima.records() == []
    folder = fake_lima.home / "_disks" / "data"
    folder.mkdir(parents=True)
    (folder / "datadisk").touch()
    run(pytester, template).assert_outcomes(passed=1)
    assert (folder / "datadisk").exists()
    fake_lima.assert_clean()


@pytest.mark.parametrize(
    "path", ["{{ .Param.run }}/docker.sock", "{{- .Param.run -}} /docker.sock"]
)
def test_the_socket_of_an_engine_may_be_written_as_lima_has_it(pytester, fake_lima, path):
    rules = [{"guestSocket": path, "hostSocket": "{{ .Dir }}/sock/docker.sock"}]
    script = "#!/bin/sh\nsystemctl start docker.service\n"
    keys = {"portForwards": rules, "param": {"run": "/run"}, "provision": [{"script": script}]}
    template = fake_lima.template(keys=keys)
    code = "def test_it(lima_docker_host): pass"
    run(pytester, template, code=code).assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_one_that_can_t_be_told_is_refused_at_once(pytester, fake_lima):
    rules = [{"guestSocket": "{{if .UID}}/run/docker.sock", "hostSocket": "docker.sock"}]
    template = fake_lima.template(keys={"portForwards": rules})
    result = run(pytester, template, code="def test_it(lima_docker_host): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("TemplateError: the path of the engine's socket in the guest *")
    assert fake_lima.calls("create") == []


def test_a_guest_that_isn_t_linux_is_refused_at_once(pytester, fake_lima):
    result = run(pytester, fake_lima.template(keys={"os": "FreeBSD"}))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        "TemplateError: the template * makes no Linux guest, and pytest-lima has no others",
        "  seen: os: FreeBSD",
    ])  # fmt: skip
    assert fake_lima.calls("create") == []


TWICE = """
    def test_it(lima, lima_factory):
        lima_factory()
"""


def told_of_mounts(result) -> list[str]:
    return [line for line in result.outlines if "no mount of" in line]


def test_mounts_that_a_template_loses_are_told_once_with_the_way_to_have_them(pytester, fake_lima):
    folder = pytester.mkdir("src")
    mounts = [{"location": str(folder), "mountPoint": "/mnt/src", "writable": True}]
    template = fake_lima.template(keys={"mounts": mounts})
    result = run(pytester, template, code=TWICE)
    result.assert_outcomes(passed=1)
    (line,) = told_of_mounts(result)
    assert f"--lima-mount={folder}:/mnt/src:w" in line
    # What it says works, and then there is nothing to be told.
    code = f"""
        import yaml

        def test_it(lima):
            filled = yaml.safe_load((lima.dir / "lima.yaml").read_text())
            assert filled["mounts"] == {[{**mounts[0], "location": str(Path(folder).resolve())}]!r}
    """
    result = run(pytester, template, f"--lima-mount={folder}:/mnt/src:w", code=code)
    result.assert_outcomes(passed=1)
    assert told_of_mounts(result) == []
    fake_lima.assert_clean()


def test_they_are_told_once_by_all_workers(pytester, fake_lima):
    pytest.importorskip("xdist")
    template = fake_lima.template(keys={"mounts": [{"location": "/srv"}]})
    code = "def test_one(lima): pass\n\ndef test_two(lima): pass"
    result = run(pytester, template, "-n2", "-p", "xdist", code=code)
    result.assert_outcomes(passed=2, warnings=None)
    assert len(told_of_mounts(result)) == 1
    fake_lima.assert_clean()


def test_who_overrides_the_mounts_knows(pytester, fake_lima):
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def lima_overrides():
            return {"mounts": []}
    """)
    result = run(pytester, fake_lima.template(keys={"mounts": [{"location": "/srv"}]}))
    result.assert_outcomes(passed=1)
    assert told_of_mounts(result) == []
