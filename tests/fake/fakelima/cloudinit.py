"""cloud-init and Lima's boot.sh: the template's provision scripts, and what they leave."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakelima.common import refuse

if TYPE_CHECKING:
    from fakelima.machine import Machine

_CIDATA = "/mnt/lima-cidata"
_MODES = ("dependency", "system", "user")  # in the order boot.sh runs them
# What every stock template has, as Lima's own user-data uses keys of old.
_DEPRECATED = {"DEPRECATED": ["Config key 'ssh-authorized-keys' is deprecated"]}


def environ(machine: Machine, user: str) -> dict[str, str]:
    """What boot.sh exports for scripts; a login has none of it, but it does no harm there."""
    params = machine.config.get("param") or {}
    return {
        "LIMA_CIDATA_USER": machine.user,
        "LIMA_CIDATA_UID": str(machine.config["user"]["uid"]),
        "LIMA_CIDATA_HOME": str(machine.path(machine.home)),
        "LIMA_CIDATA_IID": machine.iid,
        **{f"PARAM_{key}": str(value) for key, value in params.items()},
        **({k: str(v) for k, v in (machine.config.get("env") or {}).items()} if user else {}),
    }


def place_scripts(machine: Machine) -> None:
    """Before anything else runs: a file can't be executed while a fork holds it for writing."""
    for number, entry in enumerate(machine.config.get("provision") or []):
        mode = entry.get("mode", "system")
        if mode not in _MODES:
            refuse(f"the fake can't do provision mode {mode}")
        path = machine.path(_name(mode, number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(machine.rewrite(entry["script"]))
        path.chmod(0o755)


def run(machine: Machine) -> None:
    """All of it, to result.json, which is cloud-init's last act."""
    log = machine.path("/var/log/cloud-init-output.log")
    folder = machine.path("/run/cloud-init")
    folder.mkdir()
    log.write_text("Cloud-init v. 25.1.4 running 'modules:final'\n")
    errors = [*machine.scenario["cloud_init_errors"]]
    if not _scripts(machine, log):
        errors.append("('scripts_per_boot', RuntimeError('Runparts: 1 failures "
                      "(00-lima.boot.sh) in 1 attempted commands'))")  # fmt: skip
    source = "DataSourceNoCloud [seed=/dev/sr0]"
    stage = {"errors": [], "recoverable_errors": {}, "start": 1.0, "finished": 2.0}
    _put(folder / "status.json", {"v1": {
        "datasource": source, "stage": None,
        "init": {**stage, "recoverable_errors": _DEPRECATED},
        "init-local": stage, "modules-config": stage,
        "modules-final": {**stage, "errors": errors},
    }})  # fmt: skip
    _put(machine.path("/run/fake/cloud-init-status.json"), {
        "boot_status_code": "enabled-by-generator", "datasource": "nocloud", "errors": errors,
        "extended_status": "error - done" if errors else "degraded done",
        "recoverable_errors": _DEPRECATED, "status": "error" if errors else "done",
    })  # fmt: skip
    with log.open("a") as file:
        file.write("Cloud-init v. 25.1.4 finished\n")
    _put(folder / "result.json", {"v1": {"datasource": source, "errors": errors}})


def _scripts(machine: Machine, log: Path) -> bool:
    """boot.sh's loop, its words included; whether all returned 0."""
    entries = [
        (mode, number)
        for mode in _MODES
        for number, entry in enumerate(machine.config.get("provision") or [])
        if entry.get("mode", "system") == mode
    ]
    ok = True
    with log.open("ab", buffering=0) as file:
        for mode, number in entries:
            name = _name(mode, number)
            whose = f" (as user {machine.user})" if mode == "user" else ""
            file.write(f"{_stamp()} Executing {name}{whose}\n".encode())
            failing = machine.scenario["failing_script"]
            if failing is not None and (mode, number) == entries[-1]:
                file.write("".join(f"{line}\n" for line in failing).encode())
                good = False
            else:
                good = _run_script(machine, mode, name, file)
            if not good:
                ok = False
                file.write(f"{_stamp()} WARNING: Failed to execute {name}{whose}\n".encode())
        time.sleep(machine.scenario["provision_seconds"])
        if machine.scenario["boot_marker"]:
            # Whatever the scripts returned: that is what Lima does.
            machine.path("/run/lima-boot-done").write_text(f"{machine.iid}\n")
        file.write(f"{_stamp()} Exiting with code {0 if ok else 1}\n".encode())
    return ok


def _run_script(machine: Machine, mode: str, name: str, log: Any) -> bool:
    user = machine.user if mode == "user" else "root"
    # Through a shell, which also takes a script without a first line.
    argv = ["/bin/sh", "-c", '"$0"', str(machine.path(name))]
    process = machine.popen(argv, user, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return process.wait() == 0


def _name(mode: str, number: int) -> str:
    return f"{_CIDATA}/provision.{mode}/{number:08d}"


def _stamp() -> str:
    return f"LIMA {datetime.now(UTC).isoformat(timespec='seconds')}|"


def _put(path: Path, document: Any) -> None:
    """Whole or not at all, as a reader may come at any time."""
    half = path.with_suffix(".tmp")
    half.write_text(json.dumps(document))
    half.replace(path)
