"""pytest-xdist's workers on another host: through a real sshd, into a fake Lima.

The sshd is the user's own, on a port of the loopback. What makes its host another one is an
environment and a folder that aren't the controller's, and what the parameter of the fixture
``host`` says.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from fakelima.fixtures import fake_lima as fake_lima

if TYPE_CHECKING:
    from fakelima.control import FakeLima

_UP_TIMEOUT = 10.0
_RUN_TIMEOUT = 60.0
# execnet gives a worker that has lost its controller 5 s before it interrupts it.
_GONE_TIMEOUT = 15.0

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/pid
UsePAM no
# Keys lie below /tmp, where everyone may write.
StrictModes no
AuthenticationMethods publickey
LoginGraceTime 20
SetEnv {environment}
"""

_CLIENT = """\
Host there
  HostName 127.0.0.1
  Port {port}
  HostKeyAlias there
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 10
"""


@dataclass
class Host:
    """What is reached by ssh.

    Attributes:
        folder: Keys, configurations, the log.
        state: XDG_STATE_HOME there.
        within: The command, if there is one, that runs sshd as its only child.
    """

    folder: Path
    state: Path
    within: list[str]
    server: psutil.Popen | None = None

    def start(self, sshd: str, environment: dict[str, str]) -> None:
        """Start sshd; ``environment`` is what its logins get."""
        for key in ("host_key", "user_key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)]
            subprocess.run(argv, check=True, timeout=_UP_TIMEOUT)
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"there {public}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (self.folder / "server").write_text(_SERVER.format(
            port=port, folder=self.folder,
            environment=" ".join(f'"{key}={value}"' for key, value in environment.items()),
        ))  # fmt: skip
        (self.folder / "client").write_text(
            _CLIENT.format(port=port, folder=self.folder, user=getpass.getuser())
        )
        options = ["-D", "-f", str(self.folder / "server"), "-E", str(self.folder / "log")]
        self.server = psutil.Popen([*self.within, sshd, *options], stdin=subprocess.DEVNULL)

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def is_up(self) -> bool:
        assert self.server is not None
        assert self.server.poll() is None, self.log()
        return "Server listening on 127.0.0.1" in self.log()

    def logins(self) -> list[psutil.Process]:
        """Everything that came of a login and still runs below sshd."""
        assert self.server is not None
        listener = self.server.children()[0] if self.within else self.server
        return listener.children(recursive=True)

    def end(self) -> None:
        if self.server is None:
            return
        processes = [self.server, *self.server.children(recursive=True)]
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass  # of its own accord, meanwhile
        _, left = psutil.wait_procs(processes, timeout=_UP_TIMEOUT)
        assert not left

    def pytest(self, tests: str, *args: str) -> subprocess.Popen[str]:
        """Start a run with two workers there, where the tests are; nothing of them is here."""
        there, here = self.folder / "there", self.folder / "here"
        there.mkdir()
        here.mkdir()
        (there / "test_there.py").write_text(tests)
        tx = f"2*ssh=there//ssh_config={self.folder}/client//python={sys.executable}//chdir={there}"
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--dist=load",
                f"--tx={tx}", *args]  # fmt: skip
        return subprocess.Popen(argv, cwd=here, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)  # fmt: skip


# Its pids are its own, so that the controller's says nothing to the ledger there.
_NAMESPACE = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child",
              "--mount-proc"]  # fmt: skip


def _can_have_namespace() -> bool:
    try:
        done = subprocess.run([*_NAMESPACE, "true"], timeout=_UP_TIMEOUT, capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.fixture(params=["same ledger", "own ledger", "own pids"])
def host(request: pytest.FixtureRequest, fake_lima: FakeLima, tmp_path: Path) -> Iterator[Host]:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if sshd is None:
        # On CI, where scripts/engine installs it, nobody would see that it is skipped.
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("sshd is missing: Debian's package openssh-server")
    within = _NAMESPACE if request.param == "own pids" else []
    if within and not _can_have_namespace():
        pytest.skip("no user namespaces for ordinary users here")
    environment = dict(fake_lima.env)
    if request.param != "same ledger":
        environment["XDG_STATE_HOME"] = str(fake_lima.dir / "user" / "there")
    host = Host(tmp_path / "host", Path(environment["XDG_STATE_HOME"]), within)
    host.folder.mkdir()
    try:
        host.start(sshd, environment)
        fake_lima.wait_until(host.is_up, _UP_TIMEOUT)
        yield host
    finally:
        host.end()


def test_workers_there_share_one_vm(host: Host, fake_lima: FakeLima) -> None:
    run = host.pytest("""
import os
import pytest

@pytest.mark.parametrize("number", range(8))
def test_it(lima, number):
    assert "SSH_CONNECTION" in os.environ
    print("VM", lima.name, os.environ["PYTEST_XDIST_WORKER"], __file__)
    assert lima.run("echo hello").stdout == "hello\\n"

def test_fails(lima):
    lima.run("echo what was seen >&2; exit 3")
""", "-rP")  # fmt: skip
    output = finish(run)
    print(output, host.log())
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 8 passed" in output
    assert host.log().count("Accepted publickey") == 2
    ran = re.findall(r"VM (pl-\w+) (gw\d) (\S+)", output)
    assert len(ran) == 8
    [name] = {name for name, _, _ in ran}
    assert {worker for _, worker, _ in ran} == {"gw0", "gw1"}
    assert {file for _, _, file in ran} == {str(host.folder / "there" / "test_there.py")}
    assert [len(fake_lima.calls(command)) for command in ("create", "start")] == [1, 1]
    # The failure has come over whole: the error, and what the VM knows.
    assert "what was seen" in output
    for section in ("console", "host agent", "cloud-init"):
        assert re.search(f"-+ lima {section} of {name}", output)
    assert (host.state / "pytest-lima").is_dir()
    fake_lima.assert_clean()
    fake_lima.wait_until(lambda: not host.logins())


def test_a_killed_controller_leaves_nothing_there(host: Host, fake_lima: FakeLima) -> None:
    run = host.pytest("""
import time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(2))
def test_it(lima, number):
    Path(f"testing-{number}").touch()
    time.sleep(60)
""")
    try:
        there = host.folder / "there"
        fake_lima.wait_until(lambda: len(list(there.glob("testing-*"))) == 2, _RUN_TIMEOUT)
        assert len(fake_lima.instances()) == 1
        assert host.logins()
    finally:
        run.kill()
        print(finish(run), host.log())
    fake_lima.wait_until(lambda: not (fake_lima.records() or fake_lima.processes()), _GONE_TIMEOUT)
    fake_lima.assert_clean()
    fake_lima.wait_until(lambda: not host.logins(), _GONE_TIMEOUT)


def test_what_is_kept_there_is_told(host: Host, fake_lima: FakeLima) -> None:
    run = host.pytest("def test_it(lima): assert 0\ndef test_other(lima): pass\n",
                      "--lima-keep=on-failure")  # fmt: skip
    output = finish(run)
    print(output, host.log())
    [name] = fake_lima.instances()
    where = "" if host.state == Path(os.environ["XDG_STATE_HOME"]) else f" on {os.uname().nodename}"
    assert output.count(f"{name} was kept{where}. To get in: ") == 1


@pytest.mark.parametrize("host", ["own ledger", "own pids"], indirect=True)
def test_what_could_not_be_removed_there_is_told(host: Host, fake_lima: FakeLima) -> None:
    template = fake_lima.template("delete-fails")
    run = host.pytest(f"""
import shutil

def refuse(path, *args, **kwargs):
    raise PermissionError(13, "Permission denied", str(path))

def test_it(lima_factory):
    shutil.rmtree = refuse
    lima_factory(template={template!r})
""")
    output = finish(run)
    print(output, host.log())
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"on {os.uname().nodename}: pl-" in output.partition(" lima ---")[2]
    # The reaper there tries once more, and nothing is in its way.
    fake_lima.wait_until(lambda: not (fake_lima.records() or fake_lima.processes()), _GONE_TIMEOUT)
    fake_lima.assert_clean()


def finish(run: subprocess.Popen[str]) -> str:
    """Its output, when it has ended by itself or by our deadline."""
    try:
        return run.communicate(timeout=_RUN_TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        raise
