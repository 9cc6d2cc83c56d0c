from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pytest_lima.errors import (
    ConnectionLostError,
    ProvisionError,
    ReadyTimeoutError,
    StartError,
)
from pytest_lima.guest import readiness
from pytest_lima.guest.answers import NotAnsweringError
from pytest_lima.guest.readiness import Waiting, await_engines, await_provisioned
from pytest_lima.guest.ssh import NotYetError

OLD = {"DEPRECATED": ["Config key 'lists' is deprecated"]}
SCRIPTS = [("system", "#!/bin/sh\nset -eu\napt-get install nosuch\n"), ("user", "echo hi\n")]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_INTERVAL", 0.02)


def waiting(seconds: float = 10, alive=lambda: None, tick=lambda: None) -> Waiting:
    return Waiting(time.monotonic() + seconds, alive, tick)


class TestUntil:
    def test_returns_what_the_attempt_does_at_once(self) -> None:
        ticks: list[int] = []
        assert waiting(tick=lambda: ticks.append(1)).until("x", lambda: 5) == 5
        assert ticks == []

    def test_tries_again_while_it_is_not_so(self) -> None:
        answers = [None, NotYetError("a"), NotAnsweringError("b"), "ready"]
        told: list[str] = []

        def attempt() -> str | None:
            told.append("attempt")
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]

        one = waiting(alive=lambda: told.append("alive"), tick=lambda: told.append("tick"))
        assert one.until("x", attempt) == "ready"
        assert told == ["alive", "attempt", "tick"] * 3 + ["alive", "attempt"]

    @pytest.mark.parametrize("seconds", [-5, 0, 0.5])
    def test_ends_at_the_deadline_and_says_what_was_seen_last(self, seconds: float) -> None:
        tried: list[str] = []

        def attempt() -> None:
            tried.append(f"refused {len(tried)}")
            raise NotYetError("no SSH", seen=tried[-1])

        begun = time.monotonic()
        with pytest.raises(ReadyTimeoutError, match=r"not ready: no SSH within [01] s") as caught:
            waiting(seconds).until("SSH", attempt)
        assert time.monotonic() - begun < max(0.0, seconds) + 20
        assert caught.value.seen == tried[-1]
        assert "raise --lima-timeout" in str(caught.value)

    def test_without_anything_seen_it_says_so(self) -> None:
        with pytest.raises(ReadyTimeoutError, match="nothing that helps"):
            waiting(0).until("x", lambda: None)

    @pytest.mark.parametrize("error", [StartError("dead"), KeyboardInterrupt(), ValueError("x")])
    def test_what_is_no_not_yet_ends_it(self, error: BaseException) -> None:
        calls: list[int] = []

        def attempt() -> None:
            calls.append(1)
            raise error

        def dies() -> None:
            if calls:
                raise error

        with pytest.raises(type(error)):
            waiting().until("x", attempt)
        with pytest.raises(type(error)):
            waiting(alive=dies).until("x", lambda: None)
        assert len(calls) == 1

    def test_a_lost_connection_of_a_vm_that_died_is_its_death(self) -> None:
        lost: list[int] = []

        def attempt() -> None:
            lost.append(1)
            raise ConnectionLostError("the SSH connection to the guest is gone")

        def alive() -> None:
            if lost:
                raise StartError("the VM did not start", seen="qemu: out of memory")

        with pytest.raises(StartError, match="out of memory"):
            waiting(alive=alive).until("x", attempt)
        with pytest.raises(ConnectionLostError):
            waiting().until("x", attempt)


def provisioned(guest, *, errors=(), recoverable=OLD, log: str = "", marker: bool = True) -> None:
    """What cloud-init and Lima's boot.sh leave."""
    guest.file("/var/log/cloud-init-output.log", log)
    if marker:
        guest.file("/run/lima-boot-done", "iid-1\n")
    status = {"v1": {"datasource": "DataSourceNoCloud", "stage": None,
                     "init": {"errors": [], "recoverable_errors": recoverable}}}  # fmt: skip
    guest.file("/run/cloud-init/status.json", json.dumps(status))
    guest.file("/run/cloud-init/result.json", json.dumps({"v1": {"errors": list(errors)}}))


def ran(*scripts: str, failed: str = "", said: str = "") -> str:
    """boot.sh's words, one boot of it."""
    lines = ["Cloud-init v. 25.1 running 'modules:final' at Mon, 23 Nov 2026. Up 9.1 seconds."]
    stamp = "LIMA 2026-11-23T10:00:00+00:00|"
    for script in scripts:
        path = f"/mnt/lima-cidata/{script}"
        lines += [f"{stamp} Executing {path}", f"output of {script}"]
        if script == failed:
            lines += [*said.splitlines(), f"{stamp} WARNING: Failed to execute {path}"]
    return "\n".join(lines) + "\n"


SYSTEM, USER = "provision.system/00000000", "provision.user/00000001"


def fails(connection, tmp_path: Path, match: str) -> ProvisionError:
    log = tmp_path / "kept.log"
    with pytest.raises(ProvisionError, match=match) as caught:
        await_provisioned(connection, waiting(), SCRIPTS, log)
    assert caught.value.log == str(log)
    assert log.exists()
    assert len(str(caught.value).splitlines()) <= 5
    return caught.value


def test_provisioned_without_errors(connection, guest, tmp_path) -> None:
    provisioned(guest, log=ran(SYSTEM, USER))
    await_provisioned(connection, waiting(), SCRIPTS, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_the_result_is_waited_for(connection, guest, tmp_path) -> None:
    """The other files are there before it, as with cloud-init."""
    provisioned(guest)
    (guest.root / "run/cloud-init/result.json").rename(guest.root / "later")
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            (guest.root / "later").rename(guest.root / "run/cloud-init/result.json")

    await_provisioned(connection, waiting(tick=tick), SCRIPTS, tmp_path / "log")
    assert len(ticks) == 3


def test_a_cloud_init_that_does_not_end(connection, guest, tmp_path) -> None:
    (guest.root / "run/cloud-init").mkdir()
    guest.file("/run/lima-boot-done", "iid-1\n")  # which Lima takes for the end
    with pytest.raises(ReadyTimeoutError, match="no end of cloud-init within"):
        await_provisioned(connection, waiting(0.5), SCRIPTS, tmp_path / "log")


def test_an_image_without_cloud_init_has_the_marker_alone(connection, guest, tmp_path) -> None:
    with pytest.raises(ReadyTimeoutError):
        await_provisioned(connection, waiting(0), SCRIPTS, tmp_path / "log")
    guest.file("/run/lima-boot-done", "iid-1\n")
    await_provisioned(connection, waiting(), SCRIPTS, tmp_path / "log")


def test_a_script_that_failed_is_named_with_its_last_lines(connection, guest, tmp_path) -> None:
    said = "\n".join(f"line {number}" for number in range(40)) + "\nE: no package nosuch"
    log = ran(SYSTEM, USER, failed=SYSTEM, said=said)
    # cloud-init's own word on it, which says less, doesn't come first.
    provisioned(guest, log=log, errors=["('scripts_per_boot', RuntimeError('1 failures'))"])
    error = fails(connection, tmp_path, r"provision.system/00000000 \(set -eu\)")
    seen = (error.seen or "").splitlines()
    assert seen[-1] == "E: no package nosuch"
    assert len(seen) == 12
    assert "mend the script" in str(error)
    assert (tmp_path / "kept.log").read_text() == log


def test_a_users_script_and_one_that_is_silent(connection, guest, tmp_path) -> None:
    log = ran(SYSTEM, USER, failed=USER).replace(f"output of {USER}\n", "")
    provisioned(guest, log=log)
    error = fails(connection, tmp_path, r"provision.user/00000001 \(echo hi\)")
    assert error.seen == "it printed nothing"


@pytest.mark.parametrize("script", ["boot/07-etc-environment.sh", "provision.system/00000099"])
def test_a_script_that_is_not_the_templates(connection, guest, tmp_path, script: str) -> None:
    provisioned(guest, log=ran(script, failed=script, said="why"))
    error = fails(connection, tmp_path, f"/mnt/lima-cidata/{script}")
    assert (error.seen or "").endswith("why")


def test_the_first_of_several_is_the_one_to_mend(connection, guest, tmp_path) -> None:
    log = ran(SYSTEM, failed=SYSTEM, said="first") + ran(USER, failed=USER, said="second")
    provisioned(guest, log=log.replace("running 'modules:final'", "on"))
    assert "first" in (fails(connection, tmp_path, "provision.system").seen or "")


def test_errors_of_cloud_init(connection, guest, tmp_path) -> None:
    provisioned(guest, errors=["('users_groups', OSError('no such group'))"], log=ran(SYSTEM))
    error = fails(connection, tmp_path, "cloud-init failed")
    assert error.seen == "('users_groups', OSError('no such group'))"


def test_only_deprecations_pass(connection, guest, tmp_path) -> None:
    for passing in ({}, OLD):
        provisioned(guest, recoverable=passing, log=ran(SYSTEM))
        await_provisioned(connection, waiting(), SCRIPTS, tmp_path / "log")
    provisioned(guest, recoverable={"WARNING": ["no mirror"], **OLD, "ERROR": ["a", "b"]})
    error = fails(connection, tmp_path, "cloud-init failed")
    assert error.seen == "WARNING: no mirror\nERROR: a\nERROR: b"


def test_without_limas_marker_its_scripts_never_ran(connection, guest, tmp_path) -> None:
    provisioned(guest, marker=False)
    error = fails(connection, tmp_path, "without running Lima's boot scripts")
    assert "NoCloud" in str(error)


def test_a_failure_of_an_earlier_boot_is_past(connection, guest, tmp_path) -> None:
    """The log is on the disk and goes on at each boot, Lima runs the scripts at each."""
    provisioned(guest, log=ran(SYSTEM, failed=SYSTEM, said="no network") + ran(SYSTEM, USER))
    await_provisioned(connection, waiting(), SCRIPTS, tmp_path / "log")


SENSELESS = [
    ("result", "not json"), ("result", "[]"), ("result", '{"v1": 5}'), ("result", "[" * 100_000),
    ("result", '{"v1": {"errors": 5}}'), ("status", "{"),
    ("status", '{"v1": {"init": {"recoverable_errors": ["x"]}}}'),
    ("status", '{"v1": {"init": {"recoverable_errors": {"ERROR": 5}}}}'),
]  # fmt: skip


def test_files_that_make_no_sense_are_the_guests_fault(connection, guest, tmp_path) -> None:
    for file, text in SENSELESS:
        provisioned(guest)
        guest.file(f"/run/cloud-init/{file}.json", text)
        with pytest.raises(ProvisionError):
            await_provisioned(connection, waiting(), SCRIPTS, tmp_path / "log")


def test_a_connection_that_breaks_off_is_no_success(connection, guest, tmp_path) -> None:
    guest.drop_connections()
    with pytest.raises(ConnectionLostError):
        await_provisioned(connection, waiting(), SCRIPTS, tmp_path / "log")


def test_engines_are_awaited_each(monkeypatch) -> None:
    asked: list[tuple[str, Path]] = []

    def ping(engine: str, path: Path) -> str:
        asked.append((engine, path))
        if len(asked) < 3:
            raise NotAnsweringError("x", seen="refused")
        return "OK"

    monkeypatch.setattr(readiness.answers, "ping", ping)
    await_engines(waiting(), {"docker": Path("/d"), "containerd": Path("/c")})
    assert asked == [("docker", Path("/d"))] * 3 + [("containerd", Path("/c"))]


def test_an_engine_that_never_answers(short_path) -> None:
    with pytest.raises(ReadyTimeoutError, match="no answer from docker within") as caught:
        await_engines(waiting(0.3), {"docker": short_path / "none.sock"})
    assert "FileNotFoundError" in str(caught.value)
