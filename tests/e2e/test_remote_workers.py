"""pytest-xdist's workers on another host: through a real sshd, into a fake Lima.

The sshd is the user's own, on a port of the loopback. What makes its host another one is an
environment that isn't the controller's, a folder that the tests are copied to, and what the
parameter of the fixture ``host`` says.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

_SPEC = importlib.util.spec_from_file_location(
    "fake_lima_fixtures", Path(__file__).parents[1] / "fake" / "fixtures.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

fake_lima = _MODULE.fake_lima

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

    def pytest(self, suite: Path, *args: str) -> list[str]:
        """The command line of a run with two workers there, which gets the suite by rsync."""
        there = self.folder / "there"
        tx = f"2*ssh=there//ssh_config={self.folder}/client//python={sys.executable}//chdir={there}"
        return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--dist=load",
                f"--tx={tx}", f"--rsyncdir={suite}", str(suite), *args]  # fmt: skip


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
        pytest.skip("sshd is missing: Debian's package openssh-server")
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


@pytest.fixture
def suite(tmp_path: Path) -> Callable[[str], Path]:
    """Makes the folder that the workers get a copy of."""

    def make(text: str) -> Path:
        folder = tmp_path / "suite"
        folder.mkdir()
        (folder / "test_there.py").write_text(text)
        return folder

    return make


def test_workers_there_share_one_vm(
    host: Host, suite: Callable[[str], Path], fake_lima: FakeLima
) -> None:
    folder = suite("""
import os
import pytest

@pytest.mark.parametrize("number", range(8))
def test_it(lima, number):
    assert "SSH_CONNECTION" in os.environ
    print("VM", lima.name, os.environ["PYTEST_XDIST_WORKER"], __file__)
    assert lima.run("echo hello").stdout == "hello\\n"

def test_fails(lima):
    lima.run("echo what was seen >&2; exit 3")
""")
    done = subprocess.run(host.pytest(folder, "-rP"), text=True, timeout=_RUN_TIMEOUT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    print(done.stdout, host.log())
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 8 passed" in done.stdout
    assert host.log().count("Accepted publickey") == 2
    ran = re.findall(r"VM (pl-\w+) (gw\d) (\S+)", done.stdout)
    assert len(ran) == 8
    [name] = {name for name, _, _ in ran}
    assert {worker for _, worker, _ in ran} == {"gw0", "gw1"}
    assert {file for _, _, file in ran} == {str(host.folder / "there/suite/test_there.py")}
    assert [len(fake_lima.calls(command)) for command in ("create", "start")] == [1, 1]
    # The failure has come over whole: the error, and what the VM knows.
    assert "what was seen" in done.stdout
    for section in ("console", "host agent", "cloud-init"):
        assert re.search(f"-+ lima {section} of {name}", done.stdout)
    assert (host.state / "pytest-lima").is_dir()
    fake_lima.assert_clean()
    fake_lima.wait_until(lambda: not host.logins())


def test_a_killed_controller_leaves_nothing_there(
    host: Host, suite: Callable[[str], Path], fake_lima: FakeLima
) -> None:
    folder = suite("""
import time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(2))
def test_it(lima, number):
    Path(__file__).with_name(f"testing-{number}").touch()
    time.sleep(60)
""")
    log = host.folder / "run.log"
    with log.open("wb") as file:
        run = subprocess.Popen(host.pytest(folder), stdout=file, stderr=file)
    try:
        there = host.folder / "there" / "suite"
        fake_lima.wait_until(lambda: len(list(there.glob("testing-*"))) == 2, _RUN_TIMEOUT)
        assert len(fake_lima.instances()) == 1
        assert host.logins()
    except AssertionError:
        print(log.read_text(), host.log())
        raise
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait(_UP_TIMEOUT)
    fake_lima.wait_until(lambda: not (fake_lima.records() or fake_lima.processes()), _GONE_TIMEOUT)
    fake_lima.assert_clean()
    fake_lima.wait_until(lambda: not host.logins(), _GONE_TIMEOUT)
