from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.errors import HostError
from pytest_lima.guest.identity import Kept
from pytest_lima.lima.identity import this_process
from pytest_lima.lima.info import InstanceInfo
from pytest_lima.warm import golden as records
from pytest_lima.warm import store as stores
from pytest_lima.warm.golden import Golden
from pytest_lima.warm.store import Store

KEYS = {"ssh-ed25519": "AAAA"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def never(_: Callable[[], bool]) -> None:
    raise AssertionError("it had to wait")


def golden(folder: Path, key: str = "k1") -> Golden:
    return Golden(folder, key, "pl-1", "template:debian", Kept("token", "lima-pl-1"), "ann", KEYS,
                  "disk-1", "qcow2", ("pl-1",))  # fmt: skip


def publish(store: Store, key: str = "k1", size: int = 4096, used: float = 0) -> Golden:
    with store.building(key, never), store.half(key) as folder:
        (folder / "state").write_bytes(b"x" * size)
        (folder / "disk-1").write_bytes(b"")
        made = store.publish(golden(folder, key))
    if used:
        os.utime(made.folder / "golden.json", (used, used))
    return made


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "_golden").iterdir() if path.is_dir())


def test_an_empty_store_has_nothing(store: Store, tmp_path: Path) -> None:
    assert store.find("k1") is None
    assert store.all() == store.shrink(0) == []
    assert not (tmp_path / "_golden").exists()


def test_what_is_published_is_found_read_only_and_the_user_s_alone(
    store: Store, tmp_path: Path
) -> None:
    made = publish(store)
    assert store.find("k1") == made
    assert made.folder == tmp_path / "_golden" / "k1"
    assert made.host_keys == KEYS and made.kept.hostname == "lima-pl-1"
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.folder.iterdir()} == {0o400}
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700


def test_what_limactl_said_of_it_is_found_with_it(store: Store, tmp_path: Path) -> None:
    info = InstanceInfo("pl-1", "Running", tmp_path / "pl-1", "qemu", "x86_64", 2, 2048,
                        {"user": {"name": "ann"}})  # fmt: skip
    with store.building("k1", never), store.half("k1") as folder:
        (folder / "disk-1").write_bytes(b"")
        made = store.publish(replace(golden(folder), info=info))
    assert store.find("k1") == made
    assert made.info == replace(info, dir=made.folder)


def test_it_takes_the_place_of_one_that_is_there(store: Store, tmp_path: Path) -> None:
    publish(store)
    made = publish(store, size=8192)
    assert store.find("k1") == made and made.state.stat().st_size == 8192
    assert left(tmp_path) == ["k1"]


def test_one_that_was_kept_in_its_place_meanwhile_stays(store: Store, tmp_path: Path) -> None:
    old = publish(store)
    with store.building("k1", never), store.half("k1") as folder:
        (folder / "disk-1").write_bytes(b"")
        new = store.publish(replace(golden(folder), kept=Kept("another", "lima-pl-2")))
    store.remove(old)
    assert store.find("k1") == new
    store.remove(new)
    assert left(tmp_path) == []


def test_one_that_fails_to_be_made_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(OSError), store.building("k1", never), store.half("k1") as folder:
        (folder / "state").write_bytes(b"x")
        raise OSError
    assert store.find("k1") is None
    assert left(tmp_path) == []


def test_the_half_of_a_killed_maker_is_removed_by_the_next(store: Store, tmp_path: Path) -> None:
    with store.building("k1", never):
        pass
    (tmp_path / "_golden" / "k1.half-0").mkdir()
    assert store.all() == []
    with store.building("k1", never):
        assert left(tmp_path) == []


def test_shrinking_removes_the_halves_of_the_dead_only(store: Store, tmp_path: Path) -> None:
    with store.building("k1", never), store.half("k1") as living:
        (tmp_path / "_golden" / "k2.half-0").mkdir()
        (tmp_path / "_golden" / "k3.gone-0").mkdir()
        store.shrink(10**9)
        assert left(tmp_path) == [living.name]


def test_one_key_has_one_maker(store: Store) -> None:
    tries: list[bool] = []

    class BusyError(Exception):
        pass

    def wait(done: Callable[[], bool]) -> None:
        tries.append(done())
        raise BusyError

    with store.building("k1", never):
        with pytest.raises(BusyError), store.building("k1", wait):
            pass
        with store.building("k2", never):
            pass
    assert tries == [False]
    with store.building("k1", never):
        pass


def test_the_one_used_longest_ago_goes_first(store: Store, tmp_path: Path) -> None:
    for number, key in enumerate(("k1", "k2", "k3")):
        publish(store, key, used=1000 + number)
    store.find("k1")  # used just now
    size = store.all()[0].size
    assert [one.key for one in store.shrink(2 * size)] == ["k2"]
    assert left(tmp_path) == ["k1", "k3"]
    assert [one.key for one in store.shrink(0, keep="k3")] == ["k1"]


def test_one_in_use_stays(store: Store, tmp_path: Path) -> None:
    made = publish(store)
    disk = tmp_path / "disk-of-an-instance"
    os.link(made.folder / made.layer, disk)
    assert made.in_use
    assert store.shrink(0) == []
    disk.unlink()
    assert store.shrink(0) == [made]


def test_another_version_s_record_is_passed_over(store: Store) -> None:
    made = publish(store)
    record = made.folder / "golden.json"
    for text in ("{", "[]", '{"made": 1, "kept": {}, "key": "k1"}'):
        record.unlink()
        record.write_text(text)
        assert store.find("k1") is None
        assert store.all() == []
    assert publish(store).folder.exists()


def test_what_is_not_to_be_kept_is_remembered_until_it_is_forgiven(store: Store) -> None:
    assert store.refused("k1") is None
    store.forgive()
    publish(store)
    store.refuse("k1", "its clone did not boot")
    assert Store(store._folder.parent).refused("k1") == "its clone did not boot"
    assert store.refused("k2") is None
    assert [one.key for one in store.all()] == ["k1"]
    store.forgive()
    assert store.refused("k1") is None


def test_what_a_run_keeps_while_another_removes_the_old_one_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has looked what there is removes just that: nobody publishes in between."""
    old = publish(store)
    monkeypatch.setattr(stores, "_CHANGES_TIMEOUT", 0.2)
    read, tried = records.read, []

    def slow(folder: Path) -> Golden | None:
        found = read(folder)
        if not tried:
            tried.append(folder)
            with pytest.raises(HostError, match="another process has been changing"):
                publish(Store(tmp_path))
        return found

    monkeypatch.setattr(records, "read", slow)
    store.remove(old)
    assert tried and left(tmp_path) == []


def test_one_that_can_not_be_read_now_is_not_taken_for_another_s(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = publish(store)

    def refuse(*_: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        for look in (lambda: store.find("k1"), lambda: store.remove(made)):
            with pytest.raises(OSError, match="Too many"):
                look()
        assert store.holds(made) and store.all() == store.shrink(0) == []
    assert store.find("k1") == made


def test_one_that_can_not_take_its_place_leaves_the_old_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = publish(store)
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if ".half-" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        publish(store)
    assert store.find("k1") == made and left(tmp_path) == ["k1"]


def test_a_full_disk_refuses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store)
    write = Path.write_text

    def full(path: Path, text: str) -> int:
        write(path, "")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        store.refuse("k1", "it can't be frozen")
    assert store.refused("k1") is None


def test_what_is_found_is_held_by_links_when_it_is_removed(store: Store, tmp_path: Path) -> None:
    made = publish(store)
    disk = tmp_path / "disk-of-an-instance"
    os.link(made.folder / made.layer, disk)
    store.remove(made)
    assert disk.exists() and store.find("k1") is None


def test_who_makes_one_is_known(store: Store) -> None:
    assert store.builder("k1") is None
    with store.building("k1", never):
        holder = store.builder("k1")
        assert holder is not None and holder.process == this_process()
        assert f"process {os.getpid()} for 0 s: " in str(holder)


def test_what_has_been_damaged_since_it_was_kept_is_seen(store: Store) -> None:
    with store.building("k1", never), store.half("k1") as folder:
        (folder / "state").write_bytes(b"QEVM...")
        (folder / "disk-1").write_bytes(b"QFI\xfb...")
        made = store.publish(golden(folder))
    assert records.damage(made) == ""
    os.utime(made.state, (1, 1))
    assert records.damage(made) == "its file state has changed since it was kept"
    made.state.unlink()
    assert records.damage(made) == "its file state is missing"


@pytest.mark.parametrize("name", ["state", "disk-1"])
def test_so_is_what_never_was_what_it_should_be(store: Store, name: str) -> None:
    with store.building("k1", never), store.half("k1") as folder:
        (folder / "state").write_bytes(b"QEVM...")
        (folder / "disk-1").write_bytes(b"QFI\xfb...")
        (folder / name).write_bytes(b"torn")
        made = store.publish(golden(folder))
    assert records.damage(made) == f"its file {name} is no such file as QEMU writes"


def test_what_can_not_be_looked_at_now_is_not_taken_for_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = publish(store)

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    assert records.damage(made) == ""


def test_processes_that_keep_and_remove_the_same_leave_one_whole(
    store: Store, tmp_path: Path
) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from pytest_lima.guest.identity import Kept\n"
        "from pytest_lima.warm.golden import Golden\n"
        "from pytest_lima.warm.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "def wait(done):\n"
        "    while not done(): time.sleep(0.001)\n"
        "for number in range(40):\n"
        "    old = store.find('k1')\n"
        "    with store.building('k1', wait), store.half('k1') as folder:\n"
        "        (folder / 'disk-1').write_text('disk')\n"
        "        kept = Kept(sys.argv[2] + str(number), 'h')\n"
        "        store.publish(Golden(folder, 'k1', 'pl-1', 't', kept, 'ann', {},\n"
        "                             'disk-1', 'raw', ('pl-1',)))\n"
        "    if old: store.remove(old)\n"
        "    store.shrink(10**9)\n"
    )
    makers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name])
              for name in ("a", "b")]  # fmt: skip
    assert [maker.wait(60) for maker in makers] == [0, 0]
    made = store.find("k1")
    assert made is not None and made.kept.token[1:] == "39" and records.damage(made) == ""
    assert left(tmp_path) == ["k1"]
