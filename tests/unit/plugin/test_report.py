from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_lima.errors import CommandTimeoutError, ConnectionLostError, HostError, LimaError
from pytest_lima.ownership.pool import Kept
from pytest_lima.plugin import report
from pytest_lima.settings import resolve


def session(**changes: object):
    accelerator = SimpleNamespace(name="tcg")
    host = SimpleNamespace(vmtype="qemu", accelerator=accelerator, version="2.2.0")
    pool = SimpleNamespace(host=lambda: host, kept=[], mark_failed=lambda machine: None)
    base = {"settings": resolve({}, {}, {}), "pool": pool, "problems": [],
            "workers": SimpleNamespace(kept=[])}  # fmt: skip
    return SimpleNamespace(**{**base, **changes})


def test_the_header_is_one_line_with_the_source_of_what_was_chosen() -> None:
    settings = resolve(
        {"cpus": "2"}, {"PYTEST_LIMA_TEMPLATE": "a\nb"}, {"lima": 1, "keep": "always"}
    )
    [line] = report.header(session(settings=settings))
    assert line == (
        "lima: a + b, qemu, tcg, limactl 2.2.0 "
        "(template from environment, cpus from command line, keep from ini)"
    )
    assert report.header(session()) == ["lima: template:ubuntu-lts, qemu, tcg, limactl 2.2.0"]


def test_a_header_where_lima_cannot_run_is_no_error() -> None:
    def host() -> None:
        raise HostError("limactl refuses to run as root", remedy="x")

    lines = report.header(session(pool=SimpleNamespace(host=host)))
    assert lines == ["lima: can't run here: limactl refuses to run as root"]


class Machine:
    name = "pl-1"

    def __init__(self, folder: Path, said: str | LimaError) -> None:
        self.dir = folder
        self._said = said

    def run(self, command: str, *, user: str, timeout: float):
        assert timeout <= 10
        if isinstance(self._said, LimaError):
            raise self._said
        return SimpleNamespace(stdout=self._said)


def test_evidence_is_printable_and_bounded(tmp_path) -> None:
    (tmp_path / "serial.log").write_text("".join(f"line {n}\x1b[31m\r\n" for n in range(100)))
    (tmp_path / "ha.stderr.log").write_text(
        '{"level":"debug","msg":"noise"}\n{"level":"error","msg":"why"}\nplain\n'
    )
    texts = dict(report._evidence(Machine(tmp_path, "a\x1b[2Jb\n")))  # type: ignore[arg-type]
    assert texts["lima console of pl-1"].splitlines()[-1] == "line 99[31m"
    assert len(texts["lima console of pl-1"].splitlines()) == 20
    assert texts["lima host agent of pl-1"] == "why\nplain"
    assert texts["lima cloud-init of pl-1"] == "a[2Jb"


@pytest.mark.parametrize(
    "error",
    [ConnectionLostError("the SSH connection to the guest is gone"),
     CommandTimeoutError("tail", 10.0, killed=True)],
)  # fmt: skip
def test_a_guest_that_does_not_answer_is_part_of_the_evidence(tmp_path, error) -> None:
    [(title, text)] = report._evidence(Machine(tmp_path, error))  # type: ignore[arg-type]
    assert title == "lima cloud-init of pl-1"
    assert text == str(error)


class Terminal:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str, sep: str) -> None:
        self.lines.append(f"section {title}")

    def line(self, text: str, **markup: bool) -> None:
        self.lines.append(text)


def test_the_summary_is_there_only_if_something_is_left() -> None:
    terminal = Terminal()
    report.summary(terminal, session())  # type: ignore[arg-type]
    assert terminal.lines == []
    pool = SimpleNamespace(kept=[Kept("pl-1", "limactl shell pl-1", "limactl delete -f pl-1")])
    workers = SimpleNamespace(kept=[Kept("pl-3", "enter", "delete", host="there")])
    left = session(pool=pool, workers=workers, problems=["pl-2 is left"])
    report.summary(terminal, left)  # type: ignore[arg-type]
    assert terminal.lines == [
        "section lima",
        "pl-1 was kept. To get in:  limactl shell pl-1",
        "            To remove:  limactl delete -f pl-1",
        "pl-3 was kept on there. To get in:  enter",
        "                     To remove:  delete",
        "pl-2 is left",
    ]
