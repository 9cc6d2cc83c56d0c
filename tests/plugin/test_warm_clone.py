"""Warm start by a kept disk, as with vz: kept by the first run, cloned and booted by others.

vz is faked on this host, and so is freezing a file system: the fake's disk is whole only while
it is frozen.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import types
from pathlib import Path

import pytest

from pytest_lima.cli import main
from pytest_lima.guest import freeze
from pytest_lima.lima import host, paths
from pytest_lima.warm import clone

MAC = """
import types
from pytest_lima.lima import host, paths
host.sys = types.SimpleNamespace(platform="darwin")
"""
SUITE = """
import json, time
import psutil

def sleepers(vm):
    for process in psutil.process_iter(["environ", "cmdline"]):
        if (process.info["environ"] or {}).get("FAKE_GUEST") == str(vm.dir / "guest"):
            if "sleep" in (process.info["cmdline"] or ()):
                yield process

def test_it(lima, pytestconfig):
    vm = lima
    assert vm.vmtype == "vz"
    deadline = time.monotonic() + 5
    while any(sleepers(vm)):  # the guard of a freeze, which ends with it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    vm.run("test ! -e /etc/dirty && touch /etc/dirty")
    seen = {
        "boots": vm.read_text("/var/lib/boots").split(),
        "machine": vm.read_text("/etc/machine-id").strip(),
        "identifier": (vm.dir / "vz-identifier").read_text(),
        "keys": (vm.dir / "pl" / "known_hosts").read_text().split()[2],
    }
    (pytestconfig.rootpath / "seen.json").write_text(json.dumps(seen))
"""
# Each boot leaves its machine id on the disk.
BOOT = "#!/bin/sh\ncat /etc/machine-id >>/var/lib/boots\n"
PROVISION = [{"mode": "system", "script": BOOT}]


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_LIMA_VMTYPE", "vz")
    monkeypatch.setenv("PYTEST_LIMA_TEMPLATE", fake_lima.template(keys={"provision": PROVISION}))
    fake_lima.scenario("vz")
    monkeypatch.setattr(host, "sys", types.SimpleNamespace(platform="darwin"))
    pytester.makepyfile(SUITE)


def seen(pytester: pytest.Pytester) -> dict[str, object]:
    found: dict[str, object] = json.loads((pytester.path / "seen.json").read_text())
    return found


def kept(fake_lima) -> list[Path]:
    return sorted(path for path in (fake_lima.home / "_golden").iterdir() if path.is_dir())


def test_the_first_run_keeps_what_the_second_boots_a_clone_of(
    pytester: pytest.Pytester, fake_lima
) -> None:
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*being kept for warm starts*"])
    for line in ("*warning*", "*booting a clone*"):
        result.stdout.no_fnmatch_line(line)
    first = seen(pytester)
    assert first["boots"] == [first["machine"]]  # while it was kept, it had none
    assert len(kept(fake_lima)) == 1
    fake_lima.assert_clean()
    result = pytester.runpytest("--lima-start=warm")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*booting a clone*"])
    result.stdout.no_fnmatch_line("*creating*")
    second = seen(pytester)
    assert second["boots"] == [first["machine"], second["machine"]]
    for own in ("machine", "identifier", "keys"):
        assert first[own] != second[own]
    fake_lima.assert_clean()
    fake_lima.assert_all_known()


def test_cold_keeps_nothing(pytester: pytest.Pytester, fake_lima) -> None:
    pytester.runpytest("--lima-start=cold").assert_outcomes(passed=1)
    assert not (fake_lima.home / "_golden").exists()
    fake_lima.assert_clean()


def test_another_kind_is_kept_in_its_place_when_the_budget_is_spent(
    pytester: pytest.Pytester, fake_lima
) -> None:
    pytester.runpytest().assert_outcomes(passed=1)
    [first] = kept(fake_lima)
    result = pytester.runpytest("--lima-cpus=3", "--lima-warm-budget=0.000001")
    result.stdout.fnmatch_lines(["*creating*"])
    [last] = kept(fake_lima)
    assert last != first
    fake_lima.assert_clean()


def test_a_clone_that_does_not_boot_starts_cold_with_one_warning_and_is_kept_anew(
    pytester: pytest.Pytester, fake_lima
) -> None:
    pytester.runpytest().assert_outcomes(passed=1)
    [golden] = kept(fake_lima)
    (golden / "disk").chmod(0o600)
    (golden / "disk").write_bytes(b"torn")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    told = result.stdout.str()
    assert told.count("could not wake up and starts cold") == told.count("lima warning") == 1
    assert "the VM pl-" in told and "did not start" in told
    [anew] = kept(fake_lima)
    assert tarfile.is_tarfile(anew / "disk")
    fake_lima.assert_clean()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EIO])
def test_what_the_host_keeps_from_booting_stays_and_is_used_by_the_next(
    pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pytester.runpytest().assert_outcomes(passed=1)
    [golden] = kept(fake_lima)
    before = (golden / "golden.json").read_text(), golden.stat().st_ino

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(clone, "lay_out", refuse)
        result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    told = result.stdout.str()
    assert told.count("could not wake up and starts cold") == told.count("lima warning") == 1
    assert os.strerror(number) in told and "what is kept stays" in told
    assert kept(fake_lima) == [golden]
    assert ((golden / "golden.json").read_text(), golden.stat().st_ino) == before
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*booting a clone*"])
    result.stdout.no_fnmatch_line("*warning*")
    fake_lima.assert_clean()


def test_a_full_state_directory_fails_no_start(
    pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The phases in it are for people."""
    pytester.runpytest().assert_outcomes(passed=1)
    before = kept(fake_lima)
    write = paths.write_whole

    def full(path: Path, text: str) -> None:
        if path.suffix == ".phase":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr(paths, "write_whole", full)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*booting a clone*"])
    result.stdout.no_fnmatch_line("*warning*")
    assert kept(fake_lima) == before
    fake_lima.assert_clean()


def test_what_can_be_provisioned_once_only_is_not_kept_again(
    pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lima runs provision scripts at each boot, so a clone's is their second."""
    once = "#!/bin/sh\ntest ! -e /var/lib/boots && echo booted >/var/lib/boots\n"
    provision = [{"mode": "system", "script": once}]
    monkeypatch.setenv("PYTEST_LIMA_TEMPLATE", fake_lima.template(keys={"provision": provision}))
    for warnings in (0, 1):
        result = pytester.runpytest()
        result.assert_outcomes(passed=1)
        assert result.stdout.str().count("lima warning") == warnings
    result.stdout.fnmatch_lines(["*starts cold: a provision script failed*"])
    assert kept(fake_lima) == []
    result = pytester.runpytest("--lima-start=warm")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*can't be kept for warm starts*", "*a provision script failed*"])
    fake_lima.assert_clean()


def test_a_guest_that_can_t_be_frozen_is_not_kept_and_not_tried_again(
    pytester: pytest.Pytester, fake_lima
) -> None:
    fake_lima.scenario("vz", freezes=False)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*warning*")
    assert seen(pytester)["boots"] == [seen(pytester)["machine"]]
    assert kept(fake_lima) == []
    result = pytester.runpytest("--lima-start=warm")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*can't be kept for warm starts*", "*Operation not supported*"])
    result.stdout.no_fnmatch_line("*creating*")
    fake_lima.assert_clean()


def test_a_guest_goes_on_by_itself_when_its_disk_is_not_taken_in_time(
    pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "_HOLD", freeze._HOLD.replace("sleep 20", "sleep 0.2"))
    copy = clone._copy_on_write

    def slow(files: list[Path], *args) -> None:
        copy(files, *args)
        frozen = files[0].parent / "guest" / "run" / "pytest-lima" / "frozen"
        deadline = time.monotonic() + 30
        while frozen.exists() and files[0].name == "disk" and time.monotonic() < deadline:
            time.sleep(0.02)

    monkeypatch.setattr(clone, "_copy_on_write", slow)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("lima warning") == 1
    result.stdout.fnmatch_lines(["*could not be kept*did not stay frozen*"])
    assert seen(pytester)["boots"] == [seen(pytester)["machine"]]
    assert kept(fake_lima) == []
    fake_lima.assert_clean()


def test_what_reaches_other_disks_is_not_kept(
    pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_LIMA_TEMPLATE", fake_lima.template(keys={"tpm": True}))
    result = pytester.runpytest("--lima-start=warm")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*can't be kept for warm starts*", "*TPM*"])
    assert kept(fake_lima) == []
    fake_lima.assert_clean()


KILLED = """
import os, signal
from pytest_lima.warm import clone, store

owner, name = {
    "frozen": (clone, "_format"),
    "thawed": (clone, "bake"),
    "published": (store.Store, "publish"),
    "laid out": (clone, "lay_out"),
    "booted": (clone.Clone, "start"),
}[STEP]
function = getattr(owner, name)
def then_killed(*args, **kwargs):
    function(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, then_killed)
"""


def test_killed_at_any_step_it_leaves_nothing_half(pytester: pytest.Pytester, fake_lima) -> None:
    """Each run gets one step further, and the last one through."""
    steps = {"frozen": 0, "thawed": 0, "published": 1, "laid out": 1, "booted": 1}
    for step, whole in steps.items():
        pytester.makeconftest(f"{MAC}\nSTEP = {step!r}\n{KILLED}")
        assert pytester.runpytest_subprocess().ret == -9
        fake_lima.wait_until(lambda: not (fake_lima.instances() or fake_lima.records()), 20)
        assert len([path for path in kept(fake_lima) if "." not in path.name]) == whole, step
    pytester.makeconftest("")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*booting a clone*"])
    result.stdout.no_fnmatch_line("*warning*")
    assert len(kept(fake_lima)) == 1
    fake_lima.assert_clean()


def test_a_reset_is_a_clone(pytester: pytest.Pytester, fake_lima) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lima(fresh=True)
        @pytest.mark.parametrize("number", range(2))
        def test_it(lima, number):
            lima.run("test ! -e /etc/dirty && touch /etc/dirty")
        """
    )
    pytester.runpytest().assert_outcomes(passed=2)
    assert len(fake_lima.calls("create")) == 1
    fake_lima.assert_clean()


def test_workers_that_want_the_same_start_one_of_them_cold(
    pytester: pytest.Pytester, fake_lima
) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(lima, number, pytestconfig):
            boots = lima.read_text("/var/lib/boots").split()
            (pytestconfig.rootpath / f"{len(boots)}-boots").touch()
        """
    )
    pytester.makeconftest(MAC)  # the workers are processes of their own
    result = pytester.runpytest_subprocess("-n2", "--lima-share=worker")
    result.assert_outcomes(passed=4)
    assert {path.name for path in pytester.path.glob("*-boots")} == {"1-boots", "2-boots"}
    assert len(fake_lima.calls("create")) == 1
    assert len(kept(fake_lima)) == 1
    fake_lima.assert_clean()


HOLDER = """
import sys, time
from pathlib import Path
from pytest_lima.warm.store import Store

def wait(done):
    raise AssertionError

with Store(Path(sys.argv[1])).building(sys.argv[2], wait):
    print("held", flush=True)
    time.sleep(60)
"""


def test_who_starts_the_same_and_does_not_come_to_an_end_is_named(
    pytester: pytest.Pytester, fake_lima
) -> None:
    pytester.runpytest().assert_outcomes(passed=1)
    [golden] = kept(fake_lima)
    shutil.rmtree(golden)
    argv = [sys.executable, "-c", HOLDER, str(fake_lima.home), golden.name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        result = pytester.runpytest("--lima-timeout=1")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([
            f"*waiting for another run that starts the same VM: process {holder.pid}*",
            "*another run has been starting the same VM for 1 s*",
            f"*seen: process {holder.pid} for *{golden.name}*",
            f"*do: end or continue process {holder.pid}, which may be suspended*",
        ])  # fmt: skip
        holder.kill()
    pytester.runpytest().assert_outcomes(passed=1)
    fake_lima.assert_clean()


def test_bake_list_and_prune(
    pytester: pytest.Pytester, fake_lima, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bake", fake_lima.template()]) == 0
    assert "is kept; this VM was ready after" in capsys.readouterr().out
    fake_lima.assert_clean()
    assert main(["list", "--json"]) == 0
    [entry] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert entry["in_use"] is False
    assert entry["golden"] == str(kept(fake_lima)[0])
    assert main(["prune", "--golden"]) == 0
    assert kept(fake_lima) == []
