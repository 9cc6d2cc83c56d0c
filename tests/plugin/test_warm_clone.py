"""Warm start by a kept disk, as with vz: kept by the first run, cloned and booted by others.

vz is faked on this host. What a disk and a clone of it really are is seen on real VMs, with
QEMU and a mount, whose memory can't be kept either.
"""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path

import pytest

from pytest_lima.cli import main
from pytest_lima.guest import identity
from pytest_lima.lima import host
from pytest_lima.warm import clone

MAC = """
import types
from pytest_lima.lima import host
host.sys = types.SimpleNamespace(platform="darwin")
"""
SUITE = """
import json

def test_it(lima, pytestconfig):
    vm = lima
    assert vm.vmtype == "vz"
    vm.run("test ! -e /etc/dirty && touch /etc/dirty")
    seen = {
        "boots": vm.read_text("/var/lib/boots").split(),
        "machine": vm.read_text("/etc/machine-id"),
        "identifier": (vm.dir / "vz-identifier").read_text(),
        "keys": (vm.dir / "pl" / "known_hosts").read_text().split()[2],
    }
    (pytestconfig.rootpath / "seen.json").write_text(json.dumps(seen))
"""
# Each boot leaves its trace on the disk.
PROVISION = [{"mode": "system", "script": "#!/bin/sh\necho booted >>/var/lib/boots\n"}]


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
    result.stdout.fnmatch_lines(["*being shut down, to be kept*", "*booting a clone*"])
    result.stdout.no_fnmatch_line("*warning*")
    first = seen(pytester)
    assert len(kept(fake_lima)) == 1
    fake_lima.assert_clean()
    result = pytester.runpytest("--lima-start=warm")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*booting a clone*"])
    result.stdout.no_fnmatch_line("*creating*")
    second = seen(pytester)
    assert first["boots"] == second["boots"] == ["booted"] * 2
    for own in ("machine", "identifier", "keys"):
        assert first[own] != second[own]
    fake_lima.assert_clean()
    fake_lima.assert_all_known()


def test_cold_keeps_nothing(pytester: pytest.Pytester, fake_lima) -> None:
    result = pytester.runpytest("--lima-start=cold")
    result.assert_outcomes(passed=1)
    assert seen(pytester)["boots"] == ["booted"]
    assert not (fake_lima.home / "_golden").exists()
    fake_lima.assert_clean()


def test_another_kind_is_kept_beside_it_as_long_as_the_budget_holds(
    pytester: pytest.Pytester, fake_lima
) -> None:
    pytester.runpytest().assert_outcomes(passed=1)
    [first] = kept(fake_lima)
    result = pytester.runpytest("--lima-cpus=3")
    result.stdout.fnmatch_lines(["*creating*", "*booting a clone*"])
    assert len(kept(fake_lima)) == 2 and first in kept(fake_lima)
    pytester.runpytest("--lima-cpus=2", "--lima-warm-budget=0.000001")
    [last] = kept(fake_lima)
    assert last != first
    fake_lima.assert_clean()


def test_a_clone_that_does_not_boot_starts_cold_with_one_warning(
    pytester: pytest.Pytester, fake_lima
) -> None:
    pytester.runpytest().assert_outcomes(passed=1)
    for mode, outcome in (("warm", {"errors": 1}), ("auto", {"passed": 1})):
        [golden] = kept(fake_lima)
        aside = fake_lima.dir / "aside"
        shutil.copytree(golden, aside)
        (golden / "disk").chmod(0o600)
        (golden / "disk").write_bytes(b"torn")
        result = pytester.runpytest(f"--lima-start={mode}")
        result.assert_outcomes(**outcome)
        told = result.stdout.str()
        assert told.count("could not wake up and starts cold") == (mode == "auto")
        assert "the VM pl-" in told and "did not start" in told
        assert kept(fake_lima) == []  # it would fail the next run too
        fake_lima.assert_clean()
        aside.rename(golden)


def test_what_can_be_provisioned_once_only_is_not_kept_again(
    pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lima runs provision scripts at each boot, so a clone's is their second."""
    once = "#!/bin/sh\ntest ! -e /var/lib/boots && echo booted >/var/lib/boots\n"
    provision = [{"mode": "system", "script": once}]
    monkeypatch.setenv("PYTEST_LIMA_TEMPLATE", fake_lima.template(keys={"provision": provision}))
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("lima warning") == 1
    result.stdout.fnmatch_lines(["*starts cold: a provision script failed*"])
    assert kept(fake_lima) == []
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*warning*")
    result.stdout.no_fnmatch_line("*shut down*")
    result = pytester.runpytest("--lima-start=warm")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*can't be kept for warm starts*", "*a provision script failed*"])
    fake_lima.assert_clean()


def test_a_guest_that_does_not_shut_down_is_not_kept(
    pytester: pytest.Pytester, fake_lima, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "retire", lambda connection: None)
    monkeypatch.setattr(clone, "_SHUTDOWN_TIMEOUT", 0.5)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("lima warning") == 1
    result.stdout.fnmatch_lines(["*could not be kept*no end of the guest's shutdown*"])
    assert kept(fake_lima) == []
    pytester.runpytest("--lima-start=warm").assert_outcomes(errors=1)
    fake_lima.assert_clean()


def test_what_reaches_other_disks_is_not_kept(pytester: pytest.Pytester, fake_lima, monkeypatch):
    keys = {"provision": PROVISION, "tpm": True}
    monkeypatch.setenv("PYTEST_LIMA_TEMPLATE", fake_lima.template(keys=keys))
    pytester.runpytest().assert_outcomes(passed=1)
    assert seen(pytester)["boots"] == ["booted"]
    assert kept(fake_lima) == []
    result = pytester.runpytest("--lima-start=warm")
    result.stdout.fnmatch_lines(["*can't be kept for warm starts*", "*TPM*"])
    fake_lima.assert_clean()


KILLED = """
import os, signal
from pytest_lima.guest import identity
from pytest_lima.warm import clone, store

owner, name = {
    "retired": (identity, "retire"),
    "shut down": (clone, "shut_down"),
    "linked": (clone, "bake"),
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


@pytest.mark.parametrize(
    ("step", "whole"),
    [("retired", 0), ("shut down", 0), ("linked", 0), ("published", 1), ("laid out", 1),
     ("booted", 1)],
)  # fmt: skip
def test_killed_at_any_step_it_leaves_nothing(
    pytester: pytest.Pytester, fake_lima, step: str, whole: int
) -> None:
    pytester.makeconftest(f"{MAC}\nSTEP = {step!r}\n{KILLED}")
    assert pytester.runpytest_subprocess().ret == -9
    fake_lima.wait_until(lambda: not (fake_lima.instances() or fake_lima.records()), 20)
    assert len([path for path in kept(fake_lima) if "." not in path.name]) == whole
    pytester.makeconftest("")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*warning*")
    assert ("creating" in result.stdout.str()) is not bool(whole)
    assert len(kept(fake_lima)) == 1
    fake_lima.assert_clean()


def test_a_reset_is_a_clone(pytester: pytest.Pytester, fake_lima) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lima(fresh=True)
        @pytest.mark.parametrize("number", range(3))
        def test_it(lima, number):
            lima.run("test ! -e /etc/dirty && touch /etc/dirty")
        """
    )
    pytester.runpytest().assert_outcomes(passed=3)
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
        def test_it(lima, number):
            assert lima.read_text("/var/lib/boots").split() == ["booted"] * 2
        """
    )
    pytester.makeconftest(MAC)  # the workers are processes of their own
    result = pytester.runpytest_subprocess("-n2", "--lima-share=worker")
    result.assert_outcomes(passed=4)
    assert len(fake_lima.calls("create")) == 1
    assert len(kept(fake_lima)) == 1
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
