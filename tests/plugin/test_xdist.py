"""pytest-xdist over the fake: who shares which VM, and that nothing of it is left."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("xdist")

TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(12))
def test_it(lima, number, record_property):
    print("VM", lima.name, os.environ["PYTEST_XDIST_WORKER"])
    assert lima.run("echo hello").stdout == "hello\\n"
"""


def names(result: pytest.RunResult) -> set[str]:
    return set(re.findall(r"VM (pl-\w+) gw", result.stdout.str()))


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadgroup", "worksteal"])
def test_all_workers_share_one_vm(pytester, fake_lima, dist):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n4", f"--dist={dist}", "-rP")
    result.assert_outcomes(passed=12)
    assert len(fake_lima.calls("create")) == 1
    assert len(names(result)) == 1
    fake_lima.assert_clean()


def test_each_worker_has_its_own(pytester, fake_lima):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n3", "-rP", "--lima-share=worker", "--lima-max-vms=3")
    result.assert_outcomes(passed=12)
    assert len(fake_lima.calls("create")) == 3
    fake_lima.assert_clean()


def test_workers_share_where_there_are_more_than_vms(pytester, fake_lima):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n4", "-rP", "--lima-share=worker", "--lima-max-vms=2")
    result.assert_outcomes(passed=12)
    assert len(fake_lima.calls("create")) == 2
    fake_lima.assert_clean()
