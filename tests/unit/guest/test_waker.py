"""What runs in the guest, run here below a folder; the clock and the host name are the fakes'."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_lima.guest import waker
from pytest_lima.guest.waker import UnfitError, Waker

WISHES = {"now": 1.7e9, "seed": "ab" * 32, "iid": "iid-17", "nat": "", "host": "lima-pl-2",
          "machine": "c" * 32, "old": "lima-pl-1"}  # fmt: skip
TOKEN = "/var/lib/pytest-lima/token"
SOCKET = waker.socket_of("the token")


class Done:
    """What was done to the machine, in the order in which it was."""

    def __init__(self) -> None:
        self.steps: list[str] = []


@pytest.fixture
def root(short_path: Path) -> Path:
    for folder in ("proc", "dev", "etc", "run/log/journal/" + "b" * 32, "var/lib"):
        (short_path / folder).mkdir(parents=True)
    (short_path / "etc/hostname").write_text("lima-pl-1\n")
    (short_path / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 lima-pl-1\n")
    (short_path / "etc/machine-id").write_text("b" * 32 + "\n")
    return short_path


@pytest.fixture
def done(root: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    one = Done()

    def set_clock(_: int, now: float) -> None:
        one.steps.append(f"it is {now}")

    def reseed(file: object, number: int) -> None:
        one.steps.append(f"ioctl {number:#x} after {(root / 'dev/urandom').read_bytes().hex()}")

    monkeypatch.setattr(time, "clock_settime", set_clock)
    monkeypatch.setattr(socket, "sethostname", lambda name: one.steps.append(f"called {name}"))
    monkeypatch.setattr(fcntl, "ioctl", reseed)
    monkeypatch.setattr(os, "O_DIRECT", 0)  # a test's folder may lie in memory
    return one


@pytest.fixture
def kept(root: Path, done: Done) -> Iterator[tuple[Waker, socket.socket]]:
    one = Waker(str(root), "the token")
    with one.keep(os.getuid()) as listener:
        yield one, listener


def process(root: Path, pid: int, name: str, parent: int, begun: str) -> None:
    """A line as the kernel has it; a name may contain anything."""
    fields = ["S", str(parent), *["0"] * 17, begun, "0"]
    (root / f"proc/{pid}").mkdir(exist_ok=True)
    (root / f"proc/{pid}/stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


def ask(root: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(root) + SOCKET)
        with sock.makefile("rb") as answer:
            assert answer.readline() == b"awake\n"
            sock.sendall(line)
            sock.shutdown(socket.SHUT_WR)
            return answer.read()


def test_it_is_woken_over_a_socket_of_the_login_user_s(
    kept: tuple[Waker, socket.socket], root: Path
) -> None:
    one, listener = kept
    path = Path(str(root) + SOCKET)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711
    thread = threading.Thread(target=one.serve, args=(listener,))
    thread.start()
    assert ask(root, b"") == b""  # somebody looks whether it is there
    assert ask(root, b"half a requ") == b""
    facts = json.loads(ask(root, json.dumps(WISHES).encode() + b"\n"))
    thread.join(10)
    assert not thread.is_alive()
    assert (facts["memory"], facts["disk"]) == ("the token", "the token")
    assert abs(facts["time"] - time.time()) < 60


def test_the_guest_becomes_another(
    kept: tuple[Waker, socket.socket], root: Path, done: Done
) -> None:
    kept[0].answer(json.dumps(WISHES).encode())
    assert done.steps == ["it is 1700000000.0", f"ioctl 0x5207 after {'ab' * 32}",
                          "called lima-pl-2"]  # fmt: skip
    assert (root / "etc/hostname").read_text() == "lima-pl-2\n"
    assert (root / "etc/hosts").read_text() == "127.0.0.1 localhost\n127.0.1.1 lima-pl-2\n"
    assert (root / "etc/machine-id").read_text() == "c" * 32 + "\n"
    assert (root / "run/log/journal" / ("c" * 32)).readlink() == Path("b" * 32)
    for name in ("lima-ssh-ready", "lima-boot-done"):
        assert (root / "run" / name).read_text() == "iid-17\n"


def test_one_that_is_put_back_stays_who_it_is(
    kept: tuple[Waker, socket.socket], root: Path, done: Done
) -> None:
    kept[0].answer(json.dumps({**WISHES, "host": None}).encode())
    assert (root / "etc/hostname").read_text() == "lima-pl-1\n"
    assert (root / "etc/machine-id").read_text() == "b" * 32 + "\n"
    assert (root / "run/lima-boot-done").read_text() == "iid-17\n"
    assert [step.split()[0] for step in done.steps] == ["it", "ioctl"]


def test_sessions_of_before_are_ended_and_nobody_else(
    root: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(root, 10, "sshd", 1, "500")  # it listens
    process(root, 11, "sshd-session", 10, "600")
    process(root, 12, "sshd-session", 11, "601")
    process(root, 13, "sshd", 10, "602")
    process(root, 14, "bash) (", 12, "603")
    process(root, 15, "containerd-shim", 1, "400")
    process(root, 16, "sshd", 15, "604")  # it listens in a container
    process(root, 17, "sshd", 10, "605")
    (root / "proc/self").mkdir()
    (root / "proc/18").mkdir()  # ends just now
    killed: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))
        if pid == 11:
            process(root, 12, "sshd-session", 1, "601")  # its parent is gone
        if pid == 17:
            raise ProcessLookupError  # it has ended since we looked

    monkeypatch.setattr(os, "kill", kill)
    one = Waker(str(root), "the token")
    with one.keep(os.getuid()):
        process(root, 13, "sshd", 10, "900")  # another, which has its number by now
        process(root, 19, "sshd", 10, "901")  # the one that we are logged in by
        assert "problem" not in one.answer(json.dumps(WISHES).encode())
    assert sorted(killed) == [(pid, signal.SIGKILL) for pid in (11, 12, 17)]


@pytest.mark.parametrize("name", ["hosts", "machine-id"])
def test_a_guest_without_a_file_wakes_up_without(
    kept: tuple[Waker, socket.socket], root: Path, name: str
) -> None:
    (root / "etc" / name).unlink()
    assert "problem" not in kept[0].answer(json.dumps(WISHES).encode())
    assert not (root / "etc" / name).exists()
    assert (root / "etc/hostname").read_text() == "lima-pl-2\n"


def test_other_lines_of_the_hosts_stay_as_they_are(
    kept: tuple[Waker, socket.socket], root: Path
) -> None:
    (root / "etc/hosts").write_bytes(b"127.0.1.1 lima-pl-1 # caf\xe9\n")
    kept[0].answer(json.dumps(WISHES).encode())
    assert (root / "etc/hosts").read_bytes() == b"127.0.1.1 lima-pl-2 # caf\xe9\n"


def test_who_answers_is_not_ended(kept: tuple[Waker, socket.socket], root: Path) -> None:
    one, listener = kept
    with pytest.raises(SystemExit):
        one.end()
    thread = threading.Thread(target=one.serve, args=(listener,))
    thread.start()
    ask(root, json.dumps(WISHES).encode() + b"\n")
    thread.join(10)
    one.end()


def test_the_disk_of_another_moment_is_told(kept: tuple[Waker, socket.socket], root: Path) -> None:
    (root / TOKEN.lstrip("/")).write_text("another")
    facts = kept[0].answer(json.dumps(WISHES).encode())
    assert (facts["memory"], facts["disk"]) == ("the token", "another")


@pytest.mark.parametrize("change", [{"seed": "xy"}, {"more": 1}, {"host": "lima-pl-2", "now": "x"}])
def test_a_request_that_can_t_be_met_is_answered_with_why(
    kept: tuple[Waker, socket.socket], monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    monkeypatch.setattr(time, "clock_settime", lambda _, now: float(now))
    facts = kept[0].answer(json.dumps({**WISHES, **change}).encode())
    assert list(facts) == ["problem"] and facts["problem"]


def test_random_numbers_that_can_t_be_reseeded_are_a_problem(
    kept: tuple[Waker, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert "not permitted" in str(kept[0].answer(json.dumps(WISHES).encode())["problem"])


@pytest.mark.parametrize("seen", ["", OSError(22, "Invalid argument")])
def test_a_disk_behind_a_cache_is_not_kept(
    root: Path, done: Done, monkeypatch: pytest.MonkeyPatch, seen: str | OSError
) -> None:
    def read() -> str:
        if isinstance(seen, OSError):
            raise seen
        return seen

    one = Waker(str(root), "the token")
    monkeypatch.setattr(one, "token_on_disk", read)
    with pytest.raises(UnfitError, match="past its memory"):
        one.keep(os.getuid())


@contextlib.contextmanager
def left_behind(root: Path) -> Iterator[int]:
    """The process as a guest has it, from the text that is sent there."""
    source = Path(waker.__file__).read_text().replace("os.O_DIRECT", "0")
    argv = [sys.executable, "-I", "-S", "-", str(root), "the token"]
    said = subprocess.run(argv, input=source, capture_output=True, text=True, check=True,
                          env={"SUDO_UID": str(os.getuid())}, timeout=60)  # fmt: skip
    pid = int(said.stdout)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_it_outlives_its_session_holding_nothing_of_it(
    root: Path, gone: Callable[[int], bool]
) -> None:
    path = Path(str(root) + SOCKET)
    with left_behind(root) as pid:
        assert os.getsid(pid) == pid != os.getsid(0)
        files = {Path(f"/proc/{pid}/fd/{number}").readlink() for number in (0, 1, 2)}
        assert files == {Path("/dev/null")}
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert path.is_socket()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        os.kill(pid, signal.SIGTERM)
        assert gone(pid)
    assert not path.exists()


def test_it_is_not_there_for_ever(
    kept: tuple[Waker, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waker, "_PATIENCE", 0.05)
    with pytest.raises(OSError, match="timed out"):
        kept[0].serve(kept[1])


def test_who_can_t_write_says_so(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("no folder")
    argv = [sys.executable, "-I", "-S", waker.__file__, str(tmp_path), "t"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1 and "Not a directory" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_python_of_older_guests_can_read_it() -> None:
    text = Path(waker.__file__).read_text()
    ast.parse(text, feature_version=(3, 6))
    assert "__future__" not in text  # 3.6 has no annotations there


def test_it_needs_nothing_but_python_itself() -> None:
    tree = ast.parse(Path(waker.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}  # fmt: skip
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "fcntl" in names
    assert names <= set(sys.stdlib_module_names)


ROUTE = """
import sys
from pytest_lima.guest import waker
waker._SBIN = sys.argv[1]
waker.Waker("", "")._route("*nat\\nCOMMIT\\n")
"""


def route(folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as it forks."""
    argv = [sys.executable, "-c", ROUTE, str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_rules_are_given_to_the_packet_filter(tool: Callable[..., Path], tmp_path: Path) -> None:
    folder = tool(
        "iptables-restore", f'echo "$*" >{tmp_path}/seen; /bin/cat >>{tmp_path}/seen'
    ).parent
    done = route(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "seen").read_text() == "--noflush --wait 5\n*nat\nCOMMIT\n"


def test_a_packet_filter_that_refuses_them_is_a_problem(tool: Callable[..., Path]) -> None:
    done = route(tool("iptables-restore", "exit 2").parent)
    assert "iptables-restore ended with status 0x200" in done.stderr


def test_a_guest_without_one_needs_none(tmp_path: Path) -> None:
    assert route(tmp_path).returncode == 0


def test_rules_are_changed_before_anybody_is_told(
    kept: tuple[Waker, socket.socket], root: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(self: Waker, rules: str) -> None:
        done.steps.append(f"{rules}, ready: {(root / 'run/lima-boot-done').exists()}")

    monkeypatch.setattr(Waker, "_route", note)
    kept[0].answer(json.dumps({**WISHES, "host": None, "nat": "*nat"}).encode())
    assert done.steps[-1] == "*nat, ready: False"
