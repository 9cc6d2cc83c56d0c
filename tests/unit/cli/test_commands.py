"""``pytest-lima list`` and ``prune``, in this process, over the fake limactl."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from pytest_lima import lima_instance
from pytest_lima.cli import main
from pytest_lima.errors import CleanupError
from pytest_lima.guest.identity import Kept
from pytest_lima.ownership.ledger import Ledger
from pytest_lima.ownership.record import READY
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.store import Store


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def orphan(name: str) -> None:
    """As if the process that owns it had been killed."""
    from dataclasses import replace

    ledger = Ledger()
    record = ledger.read(name)
    assert record is not None
    dead = replace(record.owner, started=1.0)
    ledger.write(replace(record, owner=dead, starter=dead, leases=(), state=READY))


def test_with_nothing_there(fake_lima, capsys) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "no instances of pytest-lima\n"
    assert main(["prune"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert main(["list", "--json"]) == main(["prune", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_list_says_who_owns_and_who_uses_what(fake_lima, capsys) -> None:
    with lima_instance(cpus=2, memory="1GiB") as vm:
        assert main(["list"]) == 0
        heading, row = capsys.readouterr().out.splitlines()
        assert heading.split() == ["NAME", "STATE", "VM", "OWNER", "USERS", "WHAT"]
        assert row.split()[:5] == [vm.name, "ready", "running", str(os.getpid()), str(os.getpid())]
        assert "cpus 2, memory 1.0" in row
        assert main(["list", "--json"]) == 0
        [entry] = lines(capsys)
        assert (entry["name"], entry["users"], entry["orphan"]) == (vm.name, [os.getpid()], False)
        fake_lima.crash(vm.name)
        orphan(vm.name)
        assert main(["list"]) == 0
        row = capsys.readouterr().out.splitlines()[1]
        assert row.split()[:6] == [
            vm.name, "ready", "stopped", str(os.getpid()), "(dead)", "nobody",
        ]  # fmt: skip


def test_prune_takes_the_dead_owners(fake_lima, capsys) -> None:
    with lima_instance(name="one") as one, lima_instance(name="two") as two:
        assert main(["prune"]) == 0
        orphan(one.name)
        capsys.readouterr()
        assert main(["prune", "--json"]) == 0
        assert lines(capsys) == [{"removed": one.name}]
        assert fake_lima.instances() == [two.name]
        assert two.run("echo still").stdout == "still\n"
    fake_lima.assert_clean()


@pytest.mark.parametrize(
    ("answer", "terminal", "removed"),
    [("y\n", True, True), ("\n", True, False), ("n\n", True, False), ("y\n", False, False)],
)
def test_prune_all_asks(fake_lima, capsys, monkeypatch, answer, terminal, removed) -> None:
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stdin)
    with lima_instance() as vm:
        assert main(["prune", "--all"]) == (0 if removed else 1)
        told = capsys.readouterr()
        assert f"{vm.name}: ready, used by process {os.getpid()}" in told.err
        assert (fake_lima.instances() == []) is removed
        assert ("Remove all of them?" in told.err) is terminal
        assert ("--yes" in told.err) is not terminal
    fake_lima.assert_clean()


def test_what_is_no_record_is_told(fake_lima, capsys) -> None:
    main(["list"])
    [folder] = fake_lima.dir.rglob("pytest-lima/instances")
    (folder / "pl-x.json").write_text('{"version": 99}')
    capsys.readouterr()
    assert main(["list"]) == 0
    assert "pl-x.json can't be read: it is of version 99" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert lines(capsys)[0]["problem"].startswith("it is of version 99")


def test_what_is_kept_for_warm_starts_is_listed_and_removed(fake_lima, capsys) -> None:
    fake_lima.home.mkdir(mode=0o700, exist_ok=True)
    store = Store(fake_lima.home)
    with store.building("k" * 32, lambda _: None), store.half("k" * 32) as folder:
        (folder / "state").write_bytes(b"x" * 2 * 1024**2)
        (folder / "disk-1").touch()
        store.publish(Golden(
            folder, "k" * 32, "pl-1", "template:debian", Kept("token", "lima-pl-1"), "ann", {},
            "disk-1", "qcow2", ("pl-1",),
        ))  # fmt: skip
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "no instances of pytest-lima",
        "golden kkkkkkkkkkkk  2 MiB  not in use  template:debian",
    ]
    assert main(["list", "--json"]) == 0
    [entry] = lines(capsys)
    assert (entry["template"], entry["mib"], entry["in_use"]) == ("template:debian", 2, False)
    assert main(["prune", "--golden"]) == 0
    assert capsys.readouterr().out == "removed golden kkkkkkkkkkkk, 2 MiB, template:debian\n"
    assert store.all() == []
    assert main(["prune", "--golden"]) == 0
    assert capsys.readouterr().out == "nothing is kept for warm starts\n"


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["prune", "--golden"]])
def test_what_another_run_removes_meanwhile_is_not_shown(
    fake_lima, capsys, monkeypatch, command: list[str]
) -> None:
    gone = Golden(fake_lima.home / "_golden" / "k", "k" * 32, "pl-1", "template:debian",
                  Kept("token", "lima-pl-1"), "ann", {}, "disk-1", "qcow2", ("pl-1",))  # fmt: skip
    monkeypatch.setattr(Store, "all", lambda store: [gone])
    assert main(command) == 0
    assert "template:debian" not in capsys.readouterr().out


@pytest.mark.usefixtures("closed_again")
def test_bake_says_what_could_not_be_removed(fake_lima, capsys, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise CleanupError("it stays", remedy="remove it by hand")

    with monkeypatch.context() as patch:
        patch.setattr("pytest_lima.ownership.removal.remove_for_good", refuse)
        assert main(["bake", fake_lima.template()]) == 1
    said = capsys.readouterr().err
    assert "no QMP socket" in said
    assert "it stays" in said and "remove it by hand" in said


def test_bake_says_why_a_vm_cannot_be_kept(fake_lima, capsys) -> None:
    """The fake's QEMU has no monitor; a real one is baked by the tests on real VMs."""
    assert main(["bake", fake_lima.template()]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "booting" in told.err
    assert "can't be kept for warm starts" in told.err
    assert "no QMP socket" in told.err
    fake_lima.assert_clean()
