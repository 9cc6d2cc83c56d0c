"""Promises 20 to 23: the ledger itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_lima.errors import HostError
from pytest_lima.ownership import ledger as ledgers
from pytest_lima.ownership.ledger import Ledger

PASSES = "def test_it(lima): pass\n"
HOLD = """
import sys, time
from pathlib import Path
from pytest_lima.ownership.ledger import Ledger
with Ledger(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], text=True,
                               stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is damaged"),
        ('{"version": 2, "name": "pl-x"', "it is damaged"),
        ('{"version": 2, "name": "pl-x"}', "it is damaged"),
        ('{"version": 99, "shape": "unknown"}', "it is of version 99"),
        ("[]", "it is damaged"),
        ("\x00\xff", "it is damaged"),
    ],
)
def test_20_records_that_cannot_be_read_are_survived_and_told(
    pytester, fake_lima, content, problem
):
    folder = fake_lima.dir / "user" / "state" / "pytest-lima" / "instances"
    folder.mkdir(parents=True)
    file = folder / "pl-x.json"
    file.write_text(content)
    pytester.makepyfile(PASSES)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"lima warning: the record {file} was left alone: {problem}*"])
    assert file.read_text() == content
    assert fake_lima.instances() == []


def test_21_a_killed_holder_of_the_lock_holds_nobody(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    begun = time.monotonic()
    with Ledger(tmp_path).lock():
        assert time.monotonic() - begun < 5


def test_21_a_suspended_one_is_named(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(ledgers, "_LOCK_TIMEOUT", 0.5)
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(HostError) as caught, Ledger(tmp_path).lock():
        pass
    assert f"process {holder.pid} for" in str(caught.value)
    assert "pytest_lima.ownership.ledger" in str(caught.value)


def test_22_the_record_is_there_before_limactl_creates(pytester, fake_lima, start):
    fake_lima.scenario("hang", hang="create-early")
    pytester.makepyfile(PASSES)
    run = start()
    fake_lima.wait_until(lambda: fake_lima.calls("create"), 20)
    [call] = fake_lima.calls("create")
    [name] = fake_lima.records()
    assert f"--name={name}" in call.argv
    run.hit(signal.SIGINT)
    run.ends(20)
    fake_lima.assert_clean()


def test_22_nothing_is_created_without_a_reaper(pytester, fake_lima):
    pytester.makepyfile(PASSES)
    pytester.makeconftest("""
        import pytest_lima.ownership.guard as guard
        guard.READY = b"never"
        guard._READY_TIMEOUT = 2.0
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["HostError: the reaper, * did not start", "  ran: *", "  do: *"])
    assert fake_lima.calls("create") == []
    fake_lima.assert_clean()


def test_23_first_runs_in_a_fresh_home_do_not_disturb_each_other(pytester, fake_lima, start):
    """Eight at once: Lima makes its SSH key without a lock."""
    pytester.makepyfile(PASSES)
    runs = [start() for _ in range(8)]
    for run in runs:
        assert run.ends(90) == 0, run.output
    assert len(fake_lima.calls("create")) == 8
    fake_lima.assert_clean()
