from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_lima import realtime
from pytest_lima.lima import verdicts
from pytest_lima.lima.verdicts import Verdict, Verdicts


@pytest.fixture
def of(tmp_path: Path, tool):
    """What is known of an accelerator, with a QEMU that is there."""
    tool("qemu", "")
    return lambda hardware="kvm": Verdicts(tmp_path, hardware, "qemu", str(tmp_path / "bin"))


def test_what_was_noted_is_known_to_the_next(of) -> None:
    assert of().read() is None
    of().note(None, lasting=True)
    of("hvf").note("it aborts", lasting=True)
    assert of().read() == Verdict(None)
    assert of("hvf").read() == Verdict("it aborts")
    of().note("a VM died of it", lasting=True)
    assert of().read() == Verdict("a VM died of it")


def test_the_next_boot_of_the_host_sees_for_itself(of, monkeypatch: pytest.MonkeyPatch) -> None:
    of().note(None, lasting=True)
    monkeypatch.setattr(verdicts, "this_host", lambda: "another-boot pid:[1]")
    assert of().read() is None


def test_another_container_of_the_host_need_not(of, monkeypatch: pytest.MonkeyPatch) -> None:
    of().note(None, lasting=True)
    boot = verdicts.this_host().split()[0]
    monkeypatch.setattr(verdicts, "this_host", lambda: f"{boot} pid:[1]")
    assert of().read() == Verdict(None)


@pytest.mark.parametrize("before", [-1.0, 700.0])
def test_what_may_pass_has_a_time_and_no_future(of, monkeypatch, before: float) -> None:
    now = realtime.monotonic()
    of().note("it hung", lasting=False)
    assert of().read() == Verdict("it hung")
    monkeypatch.setattr(realtime, "monotonic", lambda: now + before)
    assert of().read() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"boot": 1}', "\0", "VERDICTS", '{"verdicts": {}}']
)
def test_a_file_that_says_nothing_is_no_problem(of, tmp_path: Path, text: str) -> None:
    of().note(None, lasting=True)
    file = tmp_path / "_accel.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "verdicts": [1]}) if text == "VERDICTS" else text)
    assert of().read() is None
    of().note("it aborts", lasting=True)
    assert of().read() == Verdict("it aborts")


def test_a_folder_that_cannot_be_written_is_no_problem(of, tmp_path: Path) -> None:
    (tmp_path / "_accel.json").mkdir()
    of().note(None, lasting=True)
    assert of().read() is None
