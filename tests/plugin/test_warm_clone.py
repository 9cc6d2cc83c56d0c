"""Warm start by a kept disk, as with vz: kept by the first run, cloned and booted by others.

vz is faked on this host. What a disk and a clone of it really are is seen on real VMs, with
QEMU and a mount, whose memory can't be kept either.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

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
    pytester.makeconftest(MAC)
    pytester.makepyfile(SUITE)


def seen(pytester: pytest.Pytester) -> dict[str, object]:
    found: dict[str, object] = json.loads((pytester.path / "seen.json").read_text())
    return found


def kept(fake_lima) -> list[Path]:
    return sorted(path for path in (fake_lima.home / "_golden").iterdir() if path.is_dir())


def test_the_first_run_keeps_what_the_second_boots_a_clone_of(
    pytester: pytest.Pytester, fake_lima
) -> None:
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*being shut down, to be kept*", "*booting a clone*"])
    result.stdout.no_fnmatch_line("*warning*")
    first = seen(pytester)
    assert len(kept(fake_lima)) == 1
    fake_lima.assert_clean()
    result = pytester.runpytest_subprocess("--lima-start=warm")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*booting a clone*"])
    result.stdout.no_fnmatch_line("*creating*")
    second = seen(pytester)
    assert first["boots"] == second["boots"] == ["booted"] * 2
    for own in ("machine", "identifier", "keys"):
        assert first[own] != second[own]
    fake_lima.assert_clean()
    fake_lima.assert_all_known()
