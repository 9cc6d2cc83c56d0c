from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_lima.lima import evidence, logs


def line(level: str, message: str) -> str:
    return json.dumps({"level": level, "msg": message}) + "\n"


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    (tmp_path / "pl-1" / "pl").mkdir(parents=True)
    return tmp_path / "pl-1"


def test_qemu_s_own_words_come_first(instance: Path) -> None:
    (instance / "pl" / evidence.START_LOG).write_text(line("fatal", "exiting"))
    assert evidence.cause(instance) == "exiting"
    (instance / logs.HOST_AGENT).write_text(
        line("debug", "executing ssh") + line("debug", "qemu[stderr]: Permission denied")
    )
    assert evidence.cause(instance) == "qemu[stderr]: Permission denied"


def test_how_an_accelerator_has_failed(instance: Path) -> None:
    assert evidence.accelerator_failure(instance) == ""
    said = ["warning: host doesn't support requested feature", "KVM internal error. Suberror: 1",
            "emulation failure", "RAX=0000000000000000 RBX=0"]  # fmt: skip
    log = line("debug", "KVM internal error in a guest's own words")
    log += "".join(line("debug", f"qemu[stderr]: {text}") for text in said)
    (instance / logs.HOST_AGENT).write_text(log)
    assert evidence.accelerator_failure(instance) == "KVM internal error. Suberror: 1"


def test_warnings_do_not_hide_what_qemu_ended_of(instance: Path) -> None:
    said = ["Could not open 'disk'", *["warning: a feature"] * 5]
    (instance / logs.HOST_AGENT).write_text(
        "".join(line("debug", f"qemu[stderr]: {text}") for text in said)
    )
    assert "Could not open 'disk'" in evidence.cause(instance)
    (instance / logs.HOST_AGENT).write_text(line("debug", "qemu[stderr]: warning: a feature"))
    assert "warning: a feature" in evidence.cause(instance)


def test_who_said_nothing_has_no_cause(instance: Path) -> None:
    assert evidence.cause(instance) == ""


def test_the_logs_outlive_the_instance(instance: Path) -> None:
    (instance / "serial.log").write_text("Kernel panic\n")
    (instance / "pl" / evidence.START_LOG).write_text("limactl's\n")
    kept = evidence.keep(instance.parent, "pl-1")
    assert kept.parent.name == "_failures"
    assert "==> serial.log\nKernel panic" in kept.read_text()
    assert "limactl's" in kept.read_text()


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), RuntimeError("mine")])
def test_what_cannot_be_kept_is_said(
    instance: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise problem

    (instance.parent / "_failures").write_text("a file")
    monkeypatch.setattr(Path, "write_text", refuse)
    said = str(evidence.keep(instance.parent, "pl-1"))
    assert said.startswith(f"{instance.parent}/_failures/pl-1.log could not be written (")
    assert str(problem) in said
