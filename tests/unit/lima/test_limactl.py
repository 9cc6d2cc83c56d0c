from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_lima.errors import (
    CleanupError,
    LimactlMissingError,
    LimactlVersionError,
    LimaError,
    StartError,
    TemplateError,
)
from pytest_lima.lima import keys, limactl
from pytest_lima.lima.limactl import Limactl

ENTRY = {
    "name": "pl-1", "status": "Running", "dir": "/h/pl-1", "vmType": "qemu", "arch": "x86_64",
    "cpus": 2, "memory": 2147483648, "sshLocalPort": 60022, "hostAgentPID": 11, "driverPID": 12,
    "config": {"user": {"name": "ann", "uid": 1000}},
}  # fmt: skip
FATAL = '{"level":"info","msg":"starting"}\n{"level":"fatal","msg":"disk full"}\n'


@pytest.fixture
def fake(tool, tools_env, tmp_path: Path):
    """Makes a limactl that runs a ``sh`` script, after writing down its arguments."""

    def make(script: str = "", **extra: str) -> Limactl:
        path = tool("limactl", f'echo "$*" >>{tmp_path}/calls\n{script}')
        return Limactl(str(path), tmp_path / "home", {**tools_env, **extra}, {"EXTRA": "x y"})

    return make


@pytest.fixture
def calls(tmp_path: Path):
    def read() -> list[str]:
        common = "--tty=false --log-format=json "
        lines = (tmp_path / "calls").read_text().splitlines()
        return [line.removeprefix(common) for line in lines]

    return read


def test_find_takes_the_first_on_path(tool, tmp_path: Path) -> None:
    path = str(tool("limactl", ""))
    assert limactl.find(None, f"/nonexistent:{path.rpartition('/')[0]}") == path
    assert limactl.find(path, None) == path


def test_find_follows_the_home_directory(tool, tmp_path, monkeypatch) -> None:
    """``--lima-limactl=~/bin/limactl`` comes unexpanded from shells and ini files."""
    path = tool("limactl", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert limactl.find("~/bin/limactl", "/usr/bin") == str(path)


@pytest.mark.parametrize(
    ("configured", "first"),
    [(None, "limactl was not found"), ("/opt/limactl", "/opt/limactl was not found")],
)
def test_find_says_where_it_looked(configured: str | None, first: str) -> None:
    with pytest.raises(LimactlMissingError) as caught:
        limactl.find(configured, "/nonexistent")
    lines = str(caught.value).splitlines()
    assert lines[:2] == [first, "  seen: PATH=/nonexistent"]
    assert "install Lima" in lines[2]


def test_a_file_that_is_not_executable_is_not_found(tool) -> None:
    path = tool("limactl", "")
    path.chmod(0o644)
    with pytest.raises(LimactlMissingError):
        limactl.find(str(path), None)


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("limactl version 2.2.0", "2.2.0"),
        ("limactl version 2.0.0", "2.0.0"),
        ("limactl version 2.0.0-beta.0.1", "2.0.0-beta.0.1"),
        ("limactl version 2.2.0-12-gabcdef0.m", "2.2.0-12-gabcdef0.m"),
        ("limactl version v10.0.1", "10.0.1"),
    ],
)
def test_versions_that_work(fake, printed: str, version: str) -> None:
    assert fake(f"echo '{printed}'").version() == version


@pytest.mark.parametrize("version", ["1.9.9", "1.2.3-rc.1", "0.23.2"])
def test_versions_that_are_too_old(fake, version: str) -> None:
    with pytest.raises(LimactlVersionError) as caught:
        fake(f"echo limactl version {version}").version()
    lines = str(caught.value).splitlines()
    assert lines[0] == f"limactl {version} is too old"
    assert lines[1].endswith("limactl --version")
    assert "2.0.0" in lines[2]


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("echo limactl version HEAD", "limactl version HEAD"),
        ("echo broken >&2; exit 1", "broken"),
        ("echo limactl version 2.2.0; exit 1", "limactl version 2.2.0"),
        ("exit 3", "exit status 3"),
    ],
)
def test_versions_that_cannot_be_read(fake, script: str, seen: str) -> None:
    with pytest.raises(LimactlVersionError, match="doesn't tell its version") as caught:
        fake(script).version()
    assert f"  seen: {seen}" in str(caught.value).splitlines()


def test_a_limactl_that_hangs_is_told_so(fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limactl, "_QUICK", 0.2)
    with pytest.raises(LimactlVersionError, match="it did not end in time and was killed"):
        fake("exec sleep 60").version()


@pytest.mark.parametrize("use", [Limactl.version, lambda lima: lima.delete("pl-1")])
def test_a_limactl_that_cannot_be_run_is_an_error_of_ours(fake, use) -> None:
    lima = fake()
    Path(lima.path).write_text("#!/no/such/interpreter\n")
    with pytest.raises(LimactlMissingError, match=r"(?s)can't be run\n.*No such file"):
        use(lima)
    Path(lima.path).unlink()
    with pytest.raises(LimactlMissingError, match="can't be run"):
        use(lima)


def test_the_environment_is_scrubbed(fake) -> None:
    secret = {
        "SSH": "/evil", "GITHUB_TOKEN": "t", "LIMA_HOME": "/other", "LIMA_SSH_PORT_FORWARDER": "1",
        "SSH_AUTH_SOCK": "/agent", "AWS_SECRET_ACCESS_KEY": "s", "XPATH": "x", "PATHS": "x",
    }  # fmt: skip
    passed = {
        "https_proxy": "p", "NO_PROXY": "n", "SSL_CERT_FILE": "/c", "TMPDIR": "/t",
        "QEMU_SYSTEM_X86_64": "q", "XDG_CACHE_HOME": "/cache",
    }  # fmt: skip
    lima = fake("env", **secret, **passed)
    seen = dict(line.split("=", 1) for line in lima.run("x").stdout.splitlines())
    assert not (secret.keys() - {"LIMA_HOME"}) & seen.keys()
    assert passed.items() <= seen.items()
    assert seen["LIMA_HOME"] == str(lima.home)
    assert seen["EXTRA"] == "x y"


def test_nothing_asks_questions(fake, tmp_path: Path) -> None:
    done = fake("cat; echo read").run("list", "--quiet")
    assert (done.stdout, done.ok) == ("read\n", True)
    assert (tmp_path / "calls").read_text().split() == [
        "--tty=false", "--log-format=json", "list", "--quiet",
    ]  # fmt: skip


def test_template_is_what_limactl_prints(fake, calls) -> None:
    assert fake("echo 'images: []'").template("template:debian") == "images: []\n"
    assert calls() == ["template copy --embed-all template:debian -"]


def test_a_template_whose_name_limactl_refuses(fake, calls, tmp_path: Path) -> None:
    (tmp_path / ".lima.yaml").write_text("images: []")
    lima = fake('cat "$6"; echo "# $6"')
    assert lima.template(str(tmp_path / ".lima.yaml")) == f"images: []# {tmp_path}/.lima.yaml\n"
    (call,) = calls()
    assert "/.lima.yaml" not in call
    with pytest.raises(TemplateError) as caught:
        fake('echo "bad $6" >&2; exit 1').template(str(tmp_path / ".lima.yaml"))
    lines = str(caught.value).splitlines()
    assert lines[1].endswith(f"copy --embed-all {tmp_path}/.lima.yaml -")
    assert lines[2] == f"  seen: bad {tmp_path}/.lima.yaml"


def test_a_template_that_isn_t_there(fake, calls) -> None:
    lima = fake("[ $3 = create ] && printf 'docker\nubuntu-lts\n' || exit 1")
    with pytest.raises(TemplateError, match="did you mean template:docker"):
        lima.template("template:dokcer")
    assert calls() == ["template copy --embed-all template:dokcer -", "create --list-templates"]


def test_only_a_newer_limactl_is_asked_for_its_keys(fake, calls) -> None:
    schema = '{"$defs": {"LimaYAML": {"properties": {"new": {}}}}}'
    lima = fake(f"echo '{schema}'")
    assert lima.keys("2.2.0") is lima.keys("2.0.1") is keys.LIMA_2_2
    assert lima.keys("2.3.0").structs == {"": frozenset({"new"})}
    assert calls() == ["generate-jsonschema"]


def test_template_errors_are_limactls_own_words(fake) -> None:
    with pytest.raises(TemplateError) as caught:
        fake(f"printf '%s' '{FATAL}' >&2; exit 1").template("nope")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the template nope can't be used"
    assert lines[1].endswith("template copy --embed-all nope -")
    assert lines[2] == "  seen: disk full"


def test_create(fake, calls) -> None:
    lima = fake("mkdir -p $LIMA_HOME/pl-1; touch $LIMA_HOME/pl-1/lima.yaml")
    lima.create("pl-1", Path("/t.yaml"), "--set=.a = 1", "--param=B=2", timeout=5)
    assert calls() == ["create --name=pl-1 --set=.a = 1 --param=B=2 /t.yaml"]


@pytest.mark.parametrize(
    ("script", "timeout", "seen"),
    [
        (f"printf '%s' '{FATAL}' >&2; exit 1", 9, "disk full"),
        ("echo plain words >&2; exit 1", 9, "plain words"),
        ("echo on stdout; exit 1", 9, "on stdout"),
        ("exit 7", 9, "exit status 7"),
        ("echo done", 9, "done"),
        ("exec sleep 60", 0.2, "it did not end in time and was killed"),
    ],
)
def test_create_says_why_it_failed(fake, script: str, timeout: float, seen: str) -> None:
    with pytest.raises(StartError, match="could not create pl-1") as caught:
        fake(script).create("pl-1", Path("/t.yaml"), timeout=timeout)
    assert caught.value.seen == seen
    assert "/t.yaml" in str(caught.value)


def test_create_says_where_a_download_lies_that_is_not_what_it_should_be(fake, tmp_path) -> None:
    said = '{"level":"fatal","msg":"expected digest `sha256:aa`, got `sha256:bb`"}'
    with pytest.raises(StartError) as caught:
        fake(f"echo '{said}' >&2; exit 1", XDG_CACHE_HOME=str(tmp_path)).create(
            "pl-1", Path("/t.yaml"), timeout=9
        )
    assert "got `sha256:bb`" in str(caught.value)
    if sys.platform != "darwin":
        assert str(tmp_path / "lima" / "download") in str(caught.value)


def test_start_goes_on_in_the_background(fake, calls, tmp_path: Path) -> None:
    log = tmp_path / "start.log"
    child = fake("echo out; echo err >&2; exit 5").start("pl-1", log, 90.4)
    assert child.wait(10) == 5
    assert log.read_text() == "out\nerr\n"
    assert calls() == ["start --timeout=90s pl-1"]


def test_inspect_finds_the_instance(fake, calls) -> None:
    other = json.dumps({**ENTRY, "name": "pl-2"})
    info = fake(f"echo 'not json'\necho '{other}'\necho '{json.dumps(ENTRY)}'").inspect("pl-1")
    assert info is not None
    assert (info.name, info.status, info.dir) == ("pl-1", "Running", Path("/h/pl-1"))
    assert calls() == ["list --format=json pl-1"]


def test_inspect_of_an_unknown_instance(fake) -> None:
    script = """echo '{"level":"warning","msg":"No instance matching pl-1 found."}' >&2
        echo '{"level":"fatal","msg":"unmatched instances"}' >&2; exit 1"""
    assert fake(script).inspect("pl-1") is None


@pytest.mark.parametrize(
    "answer", ["", "[]", "null", '{"name": "pl-1"}', json.dumps({**ENTRY, "memory": "2GiB"})]
)
def test_inspect_of_an_answer_that_cannot_be_read(fake, answer: str) -> None:
    with pytest.raises(LimaError, match="list can't be read for pl-1"):
        fake(f"echo '{answer}'").inspect("pl-1")


def test_stop_is_gentle_first(fake, calls) -> None:
    fake().stop("pl-1", 10)
    assert calls() == ["stop pl-1"]


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 60"])
def test_stop_is_forced_where_that_fails(fake, calls, script: str) -> None:
    lima = fake(f'case "$*" in *--force*) exit 0;; esac; {script}')
    lima.stop("pl-1", 0.2)
    assert calls() == ["stop pl-1", "stop --force pl-1"]
    with pytest.raises(CleanupError, match="pl-1 could not be stopped"):
        fake("exit 1").stop("pl-1", 10)


def test_delete(fake, calls) -> None:
    fake().delete("pl-1")
    assert calls() == ["delete --force pl-1"]


def test_delete_of_a_protected_instance(fake, calls) -> None:
    lima = fake()
    (lima.home / "pl-1").mkdir(parents=True)
    (lima.home / "pl-1" / "protected").touch()
    (lima.home / "pl-1" / "lima.yaml").touch()
    lima.delete("pl-1")
    assert calls() == ["unprotect pl-1", "delete --force pl-1"]


def test_what_could_not_be_deleted_says_how_to(fake) -> None:
    lima = fake(f"printf '%s' '{FATAL}' >&2; exit 1")
    with pytest.raises(CleanupError) as caught:
        lima.delete("pl-1")
    assert caught.value.seen == "disk full"
    assert caught.value.remedy == f"LIMA_HOME={lima.home} limactl delete --force pl-1"
