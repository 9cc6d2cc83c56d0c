"""The folder that is laid out for Lima; the waking up itself is seen on real VMs."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_lima.booted import Booted
from pytest_lima.errors import InstanceDiedError, LimaError, ReadyTimeoutError, StartError
from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.identity import Kept
from pytest_lima.guest.readiness import Waiting
from pytest_lima.guest.ssh import NotYetError
from pytest_lima.lima.accel import Accelerator
from pytest_lima.lima.cidata import StartData
from pytest_lima.lima.host import Host
from pytest_lima.lima.info import InstanceInfo
from pytest_lima.lima.limactl import Limactl
from pytest_lima.lima.qmp import MigrationError
from pytest_lima.lima.template import FilledTemplate
from pytest_lima.warm import resume as resumes
from pytest_lima.warm.golden import Golden, RefusedStateError
from pytest_lima.warm.resume import Resume

if TYPE_CHECKING:
    from conftest import Recorder


@pytest.fixture
def golden(tmp_path: Path) -> Golden:
    folder = tmp_path / "_golden" / "k1"
    folder.mkdir(parents=True)
    for name in ("lima.yaml", "kernel.cmdline", "kernel", "disk-1", "disk-2", "state",
                 "console.kept.log", "golden.json"):  # fmt: skip
        (folder / name).write_text(name)
        (folder / name).chmod(0o400)
    return Golden(folder, "k1", "pl-1", "t", Kept("token", "lima-pl-1"), "ann", {}, "disk-2", "raw",
                  ("pl-1",))  # fmt: skip


@pytest.fixture
def resume(
    tmp_path: Path, golden: Golden, observer: Recorder, tool: Callable[..., Path],
    tools_env: dict[str, str],
) -> Iterator[Resume]:  # fmt: skip
    tool("qemu-img", 'echo "$*" >>"$HOME/calls"')
    host = Host(Limactl("limactl", tmp_path, tools_env, {}), "2.2.0", "qemu", "x86_64",
                Accelerator("kvm"))  # fmt: skip
    one = Resume(host, "pl-2", FilledTemplate("", "", {}, ()), 600, observer, golden)
    yield one
    one.close()


def test_the_folder_has_what_lima_reads_and_links_to_the_rest(
    resume: Resume, tmp_path: Path, golden: Golden
) -> None:
    resume.lay_out()
    folder = tmp_path / "pl-2"
    assert {path.name for path in folder.iterdir()} == {
        "lima.yaml", "kernel.cmdline", "kernel", "disk-1", "disk-2", "console.kept.log",
    }  # fmt: skip
    for name in ("kernel", "disk-1", "disk-2"):
        assert (folder / name).samefile(golden.folder / name)
    # limactl may write the texts, and must not write into what is kept.
    (folder / "lima.yaml").write_text("changed")
    assert (golden.folder / "lima.yaml").read_text() == "lima.yaml"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "calls").read_text().split()[-6:] == [
        "qcow2", "-b", "disk-2", "-F", "raw", str(folder / "disk"),
    ]  # fmt: skip
    assert golden.in_use


def test_what_limactl_said_of_the_kept_one_is_not_asked_again(
    resume: Resume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"user": {"name": "ann"}}
    kept = InstanceInfo("pl-1", "Running", tmp_path, "qemu", "x86_64", 2, 2048, config)
    monkeypatch.setattr(resume, "_golden", replace(resume._golden, info=kept))
    (tmp_path / "pl-2").mkdir()
    (tmp_path / "pl-2" / "ha.stdout.log").write_text('{"status": {"sshLocalPort": 60022}}\n')
    info, address = resume._locate(resume._waiting())
    assert info == replace(kept, name="pl-2", dir=tmp_path / "pl-2")
    assert address == Address(60022, "ann", tmp_path / "_config" / "user")


@pytest.mark.parametrize(
    ("error", "logged", "refused"),
    [
        (MigrationError("no", seen="Missing section footer for ram"), "", True),
        (MigrationError("no", seen="Cannot allocate memory"), "", False),
        (InstanceDiedError("no", seen="EOF"), "load of migration failed: Invalid argument", True),
        (InstanceDiedError("no", seen="EOF"), "error while loading state for instance", True),
        (InstanceDiedError("no", seen="EOF"), "load of migration failed: Cannot allocate memory",
         False),
        (InstanceDiedError("no", seen="EOF"), "", False),  # by Linux, which was out of memory
    ],
)  # fmt: skip
def test_a_state_is_refused_by_what_qemu_says_alone(
    resume: Resume, monkeypatch: pytest.MonkeyPatch, error: Exception, logged: str, refused: bool
) -> None:
    folder = resume._dir
    folder.mkdir()

    class Monitor:
        def __init__(self, _: Path) -> None: ...
        def __enter__(self) -> Monitor:
            return self

        def __exit__(self, *_: object) -> None: ...
        def pass_file(self, *_: object) -> None: ...
        def migrate(self, *_: object) -> None:
            (folder / "ha.stderr.log").write_text(
                f'{{"level":"info","msg":"qemu[stderr]: {logged}"}}\n' if logged else ""
            )
            raise error

    monkeypatch.setattr(resumes, "_LAST_WORDS", 0.2)
    monkeypatch.setattr(resumes, "Monitor", Monitor)
    monkeypatch.setattr(Path, "is_socket", lambda _: True)
    with pytest.raises(StartError, match="could not load the kept machine") as caught:
        resume._load(quiet())
    assert isinstance(caught.value, RefusedStateError) is refused
    assert (logged or cast("LimaError", error).seen or "") in (caught.value.seen or "")


def test_how_long_the_kept_one_took_to_boot_is_known(
    resume: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "_golden", replace(resume._golden, cold_seconds=80.0))
    booted = Booted(*cast("Any", (None,) * 6), 2.0, ("pl-1",))
    assert resume._timed(booted).cold_seconds == 80.0


def test_a_socket_named_after_the_instance_has_the_name_that_it_was_kept_under(
    resume: Resume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its provision scripts have run under that name."""
    filled = replace(resume._filled, sockets={"docker": "/run/{{ .Name }}/docker.sock"})
    monkeypatch.setattr(resume, "_filled", filled)
    asked: list[dict[str, str]] = []
    monkeypatch.setattr("pytest_lima.boot.SocketForward",
                        lambda _address, _folder, sockets, *_: asked.append(sockets))  # fmt: skip
    (tmp_path / "pl-2").mkdir()
    info = InstanceInfo("pl-2", "Running", tmp_path, "qemu", "x86_64", 2, 2048,
                        {"user": {"name": "ann"}})  # fmt: skip
    resume._forward(info, Address(60022, "ann", tmp_path))
    assert asked == [{"docker": "/run/pl-1/docker.sock"}]


def test_with_keys_of_its_own_all_goes_over_them(
    resume: Resume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: nothing is forwarded, nor kept, with the keys that others have too."""
    steps: list[str] = []
    own = HostKeys({"ssh-ed25519": "own"}, "the test", lasting=False)
    known_hosts = tmp_path / "known_hosts"

    def connection(name: str) -> Any:
        steps.append(f"{name} in")
        return SimpleNamespace(name=name, close=lambda: steps.append(f"{name} out"))

    def connect(_: Address, keys: HostKeys, *hold: object) -> Any:
        if keys is own and "early" not in steps:
            steps.append("early")
            raise NotYetError("a slow guest's sshd doesn't take every login")
        return connection(keys.keys["ssh-ed25519"])

    def renew(connection: Any) -> HostKeys:
        steps.append(f"renewed by {connection.name}")
        return own

    def forward(*_: object) -> str:
        steps.append(f"forwarded, pinned to {known_hosts.read_text().split()[-1]}")
        return "the forward"

    def waker_s(address: Address, folder: Path, sockets: object, env: object, once: str) -> Any:
        assert (sockets, once) == ({}, "/run/pytest-lima/wake-token.sock")  # and no engine's
        steps.append(f"waker forwarded, pinned to {known_hosts.read_text().split()[-1]}")
        return Forward(steps)

    monkeypatch.setattr(
        resume, "_golden", replace(resume._golden, host_keys={"ssh-ed25519": "kept"})
    )
    monkeypatch.setattr(resume, "_own_keys", True)
    monkeypatch.setattr(resume, "_load", lambda _: steps.append("loaded"))
    monkeypatch.setattr(resume, "_locate", lambda _: ("info", Address(1, "ann", tmp_path)))
    monkeypatch.setattr(resumes, "SocketForward", waker_s)
    monkeypatch.setattr(resumes.cidata, "read", lambda _: StartData("iid-17", ""))
    monkeypatch.setattr(resumes.identity, "wake", lambda *_: steps.append("woken") or 0.0)
    monkeypatch.setattr(resume, "_engines", forward)
    monkeypatch.setattr(resumes, "connect", connect)
    monkeypatch.setattr(resumes.rekey, "renew", renew)
    monkeypatch.setattr(resumes, "Vitals", lambda _: SimpleNamespace(check=lambda: None))
    booted = resume._make_ready(cast("Any", None), tmp_path)
    assert cast("Any", booted.connection).name == "own"
    before, after = steps[:8], sorted(steps[8:])
    assert before == ["loaded", "waker forwarded, pinned to kept", "woken", "forgotten", "closed",
                      "kept in", "renewed by kept", "kept out"]  # fmt: skip
    assert after == ["early", "forwarded, pinned to own", "own in"]
    assert booted.keys is own and booted.forward == "the forward"


def quiet() -> Waiting:
    return Waiting(time.monotonic() + 10, lambda: None, lambda: None)


class Forward:
    """Of the waker's socket, and of engines or none."""

    once = Path("once.sock")

    def __init__(self, steps: list[str], **sockets: Path) -> None:
        self.steps = steps
        self.sockets = sockets

    def forget(self) -> None:
        self.steps.append("forgotten")

    def close(self) -> None:
        self.steps.append("closed")


@pytest.fixture
def steps(resume: Resume, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A guest that wakes up three seconds late, and its engines."""
    done: list[str] = []

    def wake(path: Path, kept: Kept, host: str, start: StartData, timeout: float) -> float:
        if not done:
            done.append("not yet")
            raise NotYetError("it is bound, and doesn't listen")
        assert 0 < timeout <= 60
        done.append(f"{kept.hostname} woken over {path} as {host} {start.instance_id}")
        return -3.0

    monkeypatch.setattr(resumes.cidata, "read", lambda _: StartData("iid-17", ""))
    monkeypatch.setattr(resumes.identity, "wake", wake)
    monkeypatch.setattr(
        resumes.readiness, "await_engines", lambda _, sockets: done.append(f"engines {sockets}")
    )
    return done


@pytest.mark.parametrize("sockets", [{"docker": Path("docker.sock")}, {}])
def test_it_is_woken_before_its_engines_are_asked(
    resume: Resume, steps: list[str], monkeypatch: pytest.MonkeyPatch, sockets: dict[str, Path]
) -> None:
    forward = Forward(steps, **sockets)
    monkeypatch.setattr(resume, "_forward", lambda *_: forward)
    left = resume._wake_to_engines(*cast("Any", (quiet(), None, None)))
    assert steps.pop(0) == "not yet"
    assert steps[:3] == ["lima-pl-1 woken over once.sock as lima-pl-2 iid-17", "forgotten",
                         f"engines {sockets}"]  # fmt: skip
    assert left == (forward if sockets else None, -3.0)
    assert steps[3:] == ([] if sockets else ["closed"])


def test_a_guest_that_does_not_wake_up_is_not_forwarded(
    resume: Resume, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wake(*_: object) -> float:
        raise StartError("it did not wake up as it should")

    monkeypatch.setattr(resumes.identity, "wake", wake)
    monkeypatch.setattr(resume, "_forward", lambda *_: Forward(steps))
    with pytest.raises(StartError):
        resume._wake_to_engines(*cast("Any", (quiet(), None, None)))
    assert steps == ["closed"]


class Waken:
    """A guest that is there, and what is done to it until it is ready."""

    def __init__(self, resume: Resume, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resume = resume
        self.steps: list[str] = []
        self.drift = 0.0
        self.error: Exception | None = None
        self.let_in = threading.Event()
        self.let_in.set()
        (resume._dir / "pl").mkdir(parents=True)
        monkeypatch.setattr(resume, "_load", lambda _: None)
        monkeypatch.setattr(resume, "_locate", lambda _: ("info", Address(1, "ann", Path("key"))))
        monkeypatch.setattr(resume, "_wake_to_engines", self._wake)
        monkeypatch.setattr(resumes, "Vitals", lambda _: SimpleNamespace(check=lambda: None))
        monkeypatch.setattr(resumes, "connect", self._connect)
        monkeypatch.setattr(resumes.clock, "correct", self._correct)

    def make_ready(self) -> Any:
        return self.resume._make_ready(cast("Any", None), self.resume._dir / "pl")

    def _wake(self, *_: object) -> Any:
        return SimpleNamespace(close=lambda: self.steps.append("forward ended")), self.drift

    def _connect(self, *_: object) -> Any:
        self.let_in.wait(10)
        return SimpleNamespace(alive=True, close=lambda: self.steps.append("logged out"))

    def _correct(self, connection: object) -> None:
        self.steps.append("clock looked at")
        if self.error:
            raise self.error


@pytest.fixture
def waken(resume: Resume, monkeypatch: pytest.MonkeyPatch) -> Waken:
    return Waken(resume, monkeypatch)


def test_what_talks_to_an_engine_alone_waits_for_no_login(waken: Waken) -> None:
    waken.let_in.clear()
    booted = waken.make_ready()
    assert not booted.login.over(0)
    waken.let_in.set()
    assert booted.connection.alive


@pytest.mark.parametrize(
    ("drift", "looks"), [(-3.0, ["clock looked at"]), (math.inf, ["clock looked at"]), (0.4, [])]
)
def test_a_clock_that_seems_off_is_looked_at_again(
    waken: Waken, drift: float, looks: list[str]
) -> None:
    """On a busy machine the answer takes its time."""
    waken.drift = drift
    waken.make_ready()
    assert waken.steps == looks


def test_one_whose_clock_can_t_be_set_is_let_go_of(waken: Waken) -> None:
    waken.drift, waken.error = 5.0, ReadyTimeoutError("its clock can't be set")
    with pytest.raises(ReadyTimeoutError):
        waken.make_ready()
    assert waken.steps == ["clock looked at", "logged out", "forward ended"]


def test_what_is_kept_may_be_removed_while_it_is_used(resume: Resume, golden: Golden) -> None:
    golden.state.unlink()
    assert os.read(resume._state, 100) == b"state"


def test_qemu_is_started_to_wait_for_its_state(resume: Resume) -> None:
    env = resume._host.limactl.env
    assert env["QEMU_SYSTEM_X86_64"] == "qemu-system-x86_64 -incoming defer"


def test_what_the_accelerator_wants_of_qemu_stays(resume: Resume) -> None:
    known = resume._host.limactl
    limactl = Limactl(known.path, known.home, known.env, {"QEMU_SYSTEM_X86_64": "q -accel tcg"})
    tcg = Host(limactl, "2.2.0", "qemu", "x86_64", Accelerator("tcg"))
    other = Resume(tcg, "pl-3", FilledTemplate("", "", {}, ()), 600, resume._observer,
                   resume._golden)  # fmt: skip
    assert other._host.limactl.env["QEMU_SYSTEM_X86_64"] == "q -accel tcg -incoming defer"
    other.close()
