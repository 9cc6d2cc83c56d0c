"""Warm starts: kept by the first run, used by the second, whole or not there at all."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Run

KILLS_WHEN_READY = int(os.environ.get("PYTEST_LIMA_KILLS_WHEN_READY", "3"))

# What a run sees of its VMs, left in a file for the test that started the run.
SEES = """
import json, time
import pytest

ASK = '''hostname; cat /etc/machine-id /proc/sys/kernel/random/uuid /run/lima-boot-done
getent hosts "$(hostname)" >/dev/null && echo known; date +%s.%N'''

def facts(vm):
    # What has woken it up, or has waited in it while it was kept, is gone.
    assert vm.run("ls -A /run/pytest-lima || true", user="root").stdout == ""
    assert vm.run(["pgrep", "-f", "python3 -I -S"], check=False).stdout == ""
    begun = time.time()
    host, machine, uuid, iid, known, now = vm.run(ASK).stdout.split()
    assert begun - 10 < float(now) < time.time() + 10  # a busy machine delays the answer
    assert host == f"lima-{vm.name}"
    assert "session" in vm.run("journalctl -n 500 --no-pager", user="root").stdout
    return {"host": host, "machine": machine, "uuid": uuid, "iid": iid, "name": vm.name,
            "agent": (vm.dir / "cidata.iso").read_bytes().count(iid.encode()) > 0}
"""
ONE = (
    SEES
    + """
def test_it(lima, lima_docker_host, pytestconfig):
    import docker
    client = docker.DockerClient(base_url=lima_docker_host)
    assert client.ping()
    client.close()
    (pytestconfig.rootpath / "facts.json").write_text(json.dumps([facts(lima)]))
"""
)
MOUNTED = (
    SEES
    + """
from pathlib import Path

SEEN = Path(__file__).with_name("seen")
SEEN.write_text("by the guest")

@pytest.mark.lima(mounts=[str(SEEN.parent)], overrides={"mountType": "reverse-sshfs"})
def test_it(lima, lima_docker_host, pytestconfig):
    import docker
    client = docker.DockerClient(base_url=lima_docker_host)
    assert client.ping()
    client.close()
    assert lima.run(["cat", str(SEEN)]).stdout == "by the guest"
    assert lima.run("ls /left", check=False).returncode
    (pytestconfig.rootpath / "facts.json").write_text(json.dumps([facts(lima)]))
    lima.run("echo so >/left && sync", user="root")  # its disk is not held any more
"""
)
TWO = (
    SEES
    + """
from pytest_lima import InstanceDiedError

def test_it(lima_factory, pytestconfig):
    vms = [lima_factory(name=name, engine="docker") for name in ("one", "two")]
    (pytestconfig.rootpath / "facts.json").write_text(json.dumps([facts(vm) for vm in vms]))
    for vm in vms:
        vm.write_text("kept", vm.name)
    before = vms[0].run("cat /proc/sys/kernel/random/boot_id").stdout
    try:
        vms[0].reboot()
    except InstanceDiedError:
        if "Oops: int3" not in vms[0].console_log():  # the emulator's: see `reboot` in e2e
            raise
        vms[0].reset()
        vms[0].write_text("kept", vms[0].name)
        vms[0].reboot()
    assert vms[0].run("cat /proc/sys/kernel/random/boot_id").stdout != before
    assert [vm.read_text("kept") for vm in vms] == [vm.name for vm in vms]
    assert facts(vms[0])["host"] == f"lima-{vms[0].name}"
    assert "BEGIN SSH HOST KEY KEYS" in vms[0].console_log()
"""
)
# Where Lima answers the guest's DNS, on ports that are others at each start.
RESOLVED = """
import pytest

ASK = "iptables -t nat -S LIMADNS && getent ahostsv4 host.lima.internal"

@pytest.mark.lima(overrides={"plain": False})
def test_it(lima):
    before = lima.run(ASK, user="root").stdout.splitlines()
    lima.reset()
    after = lima.run(ASK, user="root", timeout=60).stdout.splitlines()
    assert len(after) == len(before)
    assert [rule for rule in after if "DNAT" in rule] != [rule for rule in before if "DNAT" in rule]
"""
OWN_KEYS = """
import json, subprocess
import docker, pytest
from pytest_lima.errors import HostKeyError
from pytest_lima.guest.hostkeys import HostKeys, from_known_hosts
from pytest_lima.guest.address import Address
from pytest_lima.guest.ssh import NotYetError, connect

def own(vm, *earlier):
    keys = from_known_hosts(vm.dir / "pl" / "known_hosts").keys
    files = vm.run("cat /etc/ssh/ssh_host_*_key.pub").stdout.splitlines()
    assert {tuple(line.split()[:2]) for line in files} == set(keys.items())
    address = Address(vm.ssh_port, vm.user, vm.dir.parent / "_config" / "user")
    for others in earlier:
        assert not set(keys.values()) & set(others.values())
        for kind, key in others.items():
            # Of a type that it has no key of any more, there is nothing to be had at all.
            with pytest.raises(HostKeyError if kind in keys else NotYetError):
                connect(address, HostKeys({kind: key}, "others"))
    client = docker.DockerClient(base_url=vm.docker_host)
    assert client.ping()
    client.close()
    return keys

def test_it(lima_factory):
    vm = lima_factory(engine="docker")
    [golden] = (vm.dir.parent / "_golden").glob("*/golden.json")
    kept = json.loads(golden.read_text())["host_keys"]
    assert kept
    first = own(vm, kept)
    argv = ["ssh", "-F", str(vm.ssh_config), f"lima-{vm.name}", "hostname"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert told.stdout == f"lima-{vm.name}\\n", told.stderr

    vm.snapshot("it")
    vm.restore("it")
    own(vm, kept, first)
"""
STANDBY = """
import time
import pytest
from pytest_lima.lima.qmp import Monitor

still = set()

def other(vm):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for file in vm.dir.parent.glob("pl-*/pl/ready.json"):
            folder = file.parents[1]
            if folder != vm.dir:
                with Monitor(folder / "qmp.sock") as monitor:
                    if monitor.execute("query-status")["status"] == "paused":
                        return folder.name
        time.sleep(0.5)

@pytest.mark.parametrize("number", range(3))
def test_it(lima_fresh, number):
    import docker
    assert not number or lima_fresh.name in still
    begun = time.time()
    host, now = lima_fresh.run("hostname; date +%s.%N; test ! -e /etc/dirty").stdout.split()
    assert host == f"lima-{lima_fresh.name}"
    assert begun - 1.5 < float(now) < time.time() + 1.5
    client = docker.DockerClient(base_url=lima_fresh.docker_host)
    assert client.ping()
    client.close()
    lima_fresh.run("touch /etc/dirty", user="root")
    if number < 2:
        still.add(other(lima_fresh))
"""
KILLED = """
import os, signal
import pytest
from pytest_lima.guest import identity
from pytest_lima.warm import bake, resume

STEPS = {
    "state written": (bake, "_write_state"),
    "layer put": (bake, "_put_layer"),
    "laid out": (resume.Resume, "lay_out"),
    "loaded": (resume.Resume, "_load"),
    "awake": (identity, "wake"),
}

@pytest.fixture(scope="session", autouse=True)
def killed(pytestconfig):
    owner, name = STEPS[os.environ["KILLED_WHEN"]]
    function = getattr(owner, name)
    def then_killed(*args, **kwargs):
        function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, then_killed)
"""


def kept(run: Run) -> list[Path]:
    """The folders of machines in the store, whole or not."""
    return [path for path in (run.home / "_golden").iterdir() if path.is_dir()]


@pytest.fixture
def suite(again: Callable[..., Run], tmp_path: Path) -> Callable[..., tuple[Run, int, str]]:
    """Runs a suite of one file."""

    def run(program: str, *args: str, conftest: str = "", **env: str) -> tuple[Run, int, str]:
        (tmp_path / "test_it.py").write_text(program)
        (tmp_path / "conftest.py").write_text(conftest)
        # These are about warm start, however the rest of the suite is run.
        made = again(str(tmp_path), f"--rootdir={tmp_path}", "--lima-start=auto", *args)
        made.env |= env
        status, output = made.finish(tmp_path)
        return made, status, output

    return run


def facts_of(folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((folder / "facts.json").read_text())
    return found


def test_the_first_run_keeps_what_the_second_wakes_up_from(
    suite: Callable[..., tuple[Run, int, str]], tmp_path: Path
) -> None:
    run, status, output = suite(ONE)
    assert status == 0
    assert "being kept for warm starts" in output and "waking up" not in output
    [first] = facts_of(tmp_path)
    assert len(kept(run)) == 1

    run, status, output = suite(ONE, "--lima-start=warm")
    assert status == 0
    assert (
        "waking up" in output
        and "booting" not in output
        and "warning" not in output.replace("lima warning: kvm", "")
    )
    [second] = facts_of(tmp_path)
    assert not first.items() & second.items() - {("agent", True)}
    run.assert_nothing_left()


def test_two_of_a_kind_share_nothing(
    suite: Callable[..., tuple[Run, int, str]], tmp_path: Path
) -> None:
    run, status, output = suite(TWO)
    assert status == 0
    assert len(set(re.findall(r"lima (\S+):.* waking up", output))) == 2
    one, two = facts_of(tmp_path)
    assert all(one[key] != two[key] for key in ("host", "machine", "uuid", "name"))
    run.assert_nothing_left()


def test_names_are_resolved_where_lima_answers_for_them(
    a_run: Callable[..., Run], tmp_path: Path
) -> None:
    """Beside the others: they count what is kept."""
    (tmp_path / "test_it.py").write_text(RESOLVED)
    run = a_run(str(tmp_path), f"--rootdir={tmp_path}", "--lima-start=auto")
    status, output = run.finish(tmp_path)
    assert status == 0
    assert "waking up" in output and "starts cold" not in output
    run.assert_nothing_left()


def test_each_has_host_keys_of_its_own_where_that_is_asked_for(
    suite: Callable[..., tuple[Run, int, str]],
) -> None:
    run, status, output = suite(OWN_KEYS, "--lima-host-keys=own")
    assert status == 0
    assert output.count("waking up") == 2 and "starts cold" not in output
    run.assert_nothing_left()


def test_what_does_not_wake_up_starts_cold_with_one_warning(
    suite: Callable[..., tuple[Run, int, str]], again: Callable[..., Run]
) -> None:
    """Its disk isn't the one that goes with its memory: seen in the guest, by its token."""
    home = again().home
    [golden] = (home / "_golden").glob("*/golden.json")

    def spoil() -> None:
        record = json.loads(golden.read_text())
        token = record["kept"]["token"]
        record["kept"]["token"] = token[:8] + token[8:][::-1]  # it is waited at by the first eight
        golden.chmod(0o600)
        golden.write_text(json.dumps(record))

    aside = home.parent / "aside"
    shutil.copytree(golden.parent, aside, copy_function=os.link)
    spoil()
    run, status, output = suite(ONE, "--lima-start=warm")
    assert status == 1
    assert "its memory is not the kept one" in output
    assert kept(run) == []  # it would fail the next run too
    run.assert_nothing_left()

    aside.rename(golden.parent)
    run, status, output = suite(ONE)
    assert status == 0
    assert len(re.findall("lima warning: .*starts cold: .*memory is not the kept one", output)) == 1
    assert len(kept(run)) == 1
    run.assert_nothing_left()
    _, status, output = suite(ONE)
    assert status == 0 and "waking up" in output and "booting" not in output


@pytest.mark.parametrize("step", ["laid out", "loaded", "awake"])
def test_a_run_killed_while_it_wakes_a_vm_up_leaves_nothing(
    suite: Callable[..., tuple[Run, int, str]], step: str
) -> None:
    _, status, _ = suite(ONE, conftest=KILLED, KILLED_WHEN=step)
    assert status == -9
    run, status, output = suite(ONE)
    assert status == 0
    assert "waking up" in output and "booting" not in output
    assert len(kept(run)) == 1
    run.assert_nothing_left()


def test_runs_killed_with_a_whole_guest_leave_nothing(
    again: Callable[..., Run], tmp_path: Path
) -> None:
    """``PYTEST_LIMA_KILLS_WHEN_READY`` in the environment is the number of kills."""
    (tmp_path / "test_it.py").write_text(
        "def test_it(lima, lima_docker_host, pytestconfig):\n"
        "    (pytestconfig.rootpath / 'inside').touch()\n"
        "    lima.run('sleep 60', timeout=90)\n"
    )
    inside = tmp_path / "inside"
    chance = random.Random(5)
    for _ in range(KILLS_WHEN_READY):
        run = again(str(tmp_path), f"--rootdir={tmp_path}", "--lima-start=auto")
        process = run.start(tmp_path)
        run.await_file(inside, 300)  # all but the first have a guest that wakes up
        inside.unlink()
        time.sleep(chance.uniform(0, 2))
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=15)  # nobody holds its output open
        run.assert_nothing_left(within=15)


def test_a_run_killed_while_it_keeps_a_snapshot_leaves_nothing(
    suite: Callable[..., tuple[Run, int, str]],
) -> None:
    program = "def test_it(lima, lima_docker_host): lima.snapshot('one')"
    run, status, _ = suite(program, conftest=KILLED, KILLED_WHEN="layer put")
    assert status == -9
    run, status, output = suite(program)
    assert status == 0 and "waking up" in output
    run.assert_nothing_left()
    assert list((run.home / "_snapshots").iterdir()) == []


def test_a_standby_stands_still_until_a_test_wants_it(
    suite: Callable[..., tuple[Run, int, str]],
) -> None:
    run, status, output = suite(STANDBY, "--lima-engine=docker", "--lima-standby=1",
                                "--lima-max-vms=2")  # fmt: skip
    assert status == 0
    assert output.count("taking the standby") == 2 and "not used" not in output
    assert output.count("waking up") == 1  # of the first; the others' is not shown
    run.assert_nothing_left()


@pytest.mark.timeout(1500)  # three cold starts
def test_runs_killed_while_they_keep_a_vm_leave_no_half(
    suite: Callable[..., tuple[Run, int, str]],
) -> None:
    """A machine that no other test has kept, and that ``pytest-lima bake`` keeps in the end."""
    program, own = "def test_it(lima): pass", '--lima-set=.env.OWN = "yes"'
    for step in ("state written", "layer put"):
        run, status, output = suite(program, own, conftest=KILLED, KILLED_WHEN=step)
        assert status == -9 and "booting" in output
    before = {path for path in kept(run) if "." not in path.name}
    run.env["PYTEST_LIMA_SET"] = '.env.OWN = "yes"'
    run.argv = [str(Path(sys.executable).with_name("pytest-lima")), "bake"]
    status, output = run.finish()
    assert status == 0
    assert re.search(r"(?m)^\S+ is kept; this VM was ready after \d+", output)
    assert len(set(kept(run)) - before) == 1
    assert not list((run.home / "_golden").glob("*.*-*"))
    _, status, output = suite(program, own)
    assert status == 0 and "waking up" in output and "booting" not in output
    run.assert_nothing_left()


@pytest.mark.timeout(1500)  # two boots
def test_with_mounts_the_disk_is_kept_while_its_guest_runs(
    suite: Callable[..., tuple[Run, int, str]], tmp_path: Path
) -> None:
    """Memory can't be, as QEMU doesn't keep a mount's side of it."""
    run, status, output = suite(MOUNTED)
    assert status == 0
    assert "being kept for warm starts" in output
    [first] = facts_of(tmp_path)
    run, status, output = suite(MOUNTED)
    assert status == 0
    assert "booting a clone" in output and "being kept" not in output
    [second] = facts_of(tmp_path)
    assert not first.items() & second.items() - {("agent", True)}
    run.assert_nothing_left()
