"""limactl create, start, stop, delete: the life of an instance."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from fakelima import common, templates
from fakelima.calling import config_of, fatal, flags_of, folder_of, hang, one, say
from fakelima.common import refuse


def create(args: list[str]) -> None:
    """Make an instance; everything but the image. Or tell the names of Lima's templates."""
    if args == ["--list-templates"]:
        print("\n".join(templates.names()))
        return
    flags, rest = flags_of(args, "--name", "--set", "--param")
    if len(flags.get("--name", [])) != 1:
        refuse("needs one --name")
    folder = folder_of(flags["--name"][0])
    if folder.exists():
        refuse(f"instance `{folder.name}` already exists")
    scenario = common.scenario()
    params = dict(pair.partition("=")[::2] for pair in flags.get("--param", []))
    source = Path(one(rest, "template"))
    if not source.is_absolute() or not source.is_file():
        refuse("the template is no file")
    try:
        text = source.read_text()
        config = templates.resolve(text, flags.get("--set", []), params, vz=scenario["vz"])
    except ValueError as error:
        fatal(str(error))
    scenario = common.scenario(config)
    _make_key(folder.parent / "_config")
    folder.mkdir(mode=0o700)
    hang("create-early", config)
    (folder / "lima.yaml").write_text(text)
    (folder / "lima-version").write_text(scenario["version"])
    (folder / "fake.json").write_text(json.dumps(config))
    hang("create", config)
    if scenario["create_error"]:
        fatal(scenario["create_error"])
    (folder / "disk").write_bytes(b"")
    say("info", f"Run `limactl start {folder.name}` to start the instance.")


def _make_key(folder: Path) -> None:
    """Lima's way, race included: two first creates of one LIMA_HOME at once, and one fails."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if (folder / "user").exists():
        return
    argv = ["ssh-keygen", "-t", "ed25519", "-q", "-N", "", "-C", "lima", "-f", folder / "user"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        fatal(f"failed to run [ssh-keygen]: {done.stdout.decode()}{done.stderr.decode()}")
    (folder / "networks.yaml").write_text("{}\n")


def start(args: list[str]) -> None:
    """Start the host agent and wait until the guest runs."""
    flags, rest = flags_of(args, "--timeout")
    folder = folder_of(one(rest))
    match = re.fullmatch(r"(\d+)s", flags.get("--timeout", [""])[0])
    if match is None or int(match[1]) < 1:
        refuse("start needs --timeout=SECONDSs; Lima takes 0 for its default of ten minutes")
    if not (folder / "lima.yaml").exists():
        refuse("start before create")
    hang("start", config_of(folder))
    status = status_of(folder)
    if status == "Running":
        say("info", f"The instance `{folder.name}` is already running.")
        return
    if status != "Stopped":
        fatal(f"expected status `Stopped`, got `{status}`")
    for name in ("ha.stdout.log", "ha.stderr.log"):
        (folder / name).write_bytes(b"")
    argv = [sys.executable, "-I", sys.argv[0], "hostagent", "--pidfile", str(folder / "ha.pid"),
            "--socket", str(folder / "ha.sock"), folder.name]  # fmt: skip
    with (
        (folder / "ha.stdout.log").open("ab") as out,
        (folder / "ha.stderr.log").open("ab") as err,
    ):
        agent = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
    _await_running(folder, agent, time.monotonic() + int(match[1]))
    ssh = f"ssh -F {folder / 'ssh.config'} lima-{folder.name}"
    say("info", f"READY. Run `{ssh}` to open the shell.")


def _await_running(folder: Path, agent: subprocess.Popen[bytes], deadline: float) -> None:
    told = ""
    while time.monotonic() < deadline:
        lines = (folder / "ha.stdout.log").read_text().splitlines(keepends=True)
        for line in lines:
            status = json.loads(line)["status"] if line.endswith("\n") else {}
            if status.get("exiting"):
                fatal(f"exiting, status={status} (hint: see `{folder / 'ha.stderr.log'}`)")
            if status.get("degraded"):
                fatal(f"degraded, status={status}")
            if status.get("running"):
                return
            if status and not told:
                told = '[hostagent] Waiting for the essential requirement 1 of 2: "ssh"'
                say("info", told)
        if agent.poll() is not None:
            fatal(f"host agent process has exited: exit status {agent.returncode}")
        time.sleep(0.01)
    # The host agent and the VM run on, as with the real one.
    fatal("did not receive an event with the `running` status")


def status_of(folder: Path) -> str:
    """Running, Stopped or Broken, by the pid files alone."""
    if not (folder / "fake.json").exists():
        return "Broken"
    agent = common.pid_of(folder / "ha.pid")
    driver = common.pid_of(folder / common.driver_pidfile(config_of(folder)))
    if agent and driver:
        return "Running"
    return "Broken" if agent or driver else "Stopped"


def stop(args: list[str]) -> None:
    """As the real one: through the host agent, or by killing."""
    flags, rest = flags_of(args, "--force")
    folder = folder_of(one(rest))
    if not (folder / "lima.yaml").exists():
        fatal(f"open {folder / 'lima.yaml'}: no such file or directory")
    if "--force" in flags:
        stop_forcibly(folder)
        return
    if status_of(folder) != "Running":
        fatal(
            f"expected status `Running`, got `{status_of(folder)}` (maybe use `limactl stop -f`?)"
        )
    agent = common.pid_of(folder / "ha.pid")
    say("info", f"Sending SIGINT to hostagent process {agent}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent, signal.SIGINT)
    while status_of(folder) != "Stopped":
        time.sleep(0.01)


def stop_forcibly(folder: Path) -> None:
    """Kill whatever the pid files name, and the guest's processes."""
    pidfiles = ["ha.pid"]
    if (folder / "fake.json").exists():
        pidfiles.insert(0, common.driver_pidfile(config_of(folder)))
    for pidfile in pidfiles:
        pid = common.pid_of(folder / pidfile)
        if pid:
            common.kill(pid)
    common.kill_guest(folder / "guest")
    for path in [*folder.glob("*.pid"), *folder.glob("*.sock"), *folder.glob("*.tmp")]:
        path.unlink(missing_ok=True)


def delete(args: list[str]) -> None:
    """Kill and remove, refusing what the real one refuses."""
    flags, rest = flags_of(args, "--force")
    folder = folder_of(one(rest))
    if "--force" not in flags:
        refuse("delete without --force")
    made = (folder / "fake.json").exists()
    scenario = common.scenario(config_of(folder) if made else None)
    if scenario["delete_error"]:
        fatal(scenario["delete_error"])
    if not folder.exists():
        say("warning", f"Ignoring non-existent instance `{folder.name}`")
        return
    if not (folder / "lima.yaml").exists():
        fatal(
            f"instance `{folder.name}` directory `{folder}` exists but its `lima.yaml` could not "
            "be read; it was NOT deleted, in case it is currently being cloned into. If no "
            "`limactl` operation is using it, remove it manually"
        )
    if (folder / "protected").exists():
        fatal(
            "instance is protected to prohibit accidental removal (Hint: use `limactl unprotect`)"
        )
    stop_forcibly(folder)
    shutil.rmtree(folder)
    say("info", f"Deleted `{folder.name}` (`{folder}`)")
