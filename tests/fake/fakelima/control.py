"""What a test holds: the fake's folder, its scenario, its calls, what it has left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakelima import common, scenarios

_FAKE = Path(__file__).resolve().parents[1]
_QEMUS = ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-img")
_STRAY = ("LIMA_", "PYTEST_LIMA_", "QEMU_SYSTEM_", "DOCKER_", "TESTCONTAINERS_", "XDG_",
          "CONTAINERD_")  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One run of a faked program.

    Attributes:
        program: ``limactl``, ``qemu-system-x86_64``, …
        argv: Its arguments.
        env: Its environment.
    """

    program: str
    argv: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def command(self) -> str:
        """limactl's command: ``create``, ``start``, …"""
        return next((arg for arg in self.argv if not arg.startswith("-")), self.argv[0])


class FakeLima:
    """A fake Lima of its own, with no instances.

    Attributes:
        dir: Everything of it.
        home: The LIMA_HOME the engine is told to use.
        limactl: The wrapper that is first on PATH.
        env: What has to be set for the engine, in this process or another.
        unset: What must not be set.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        # Not pytest's tmp_path: sockets lie in it, whose paths have to be short.
        self.dir = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp")).resolve()
        self.home = self.dir / "h"
        user = self.dir / "user"
        for folder in (self.dir / "bin", user, user / "tmp"):
            folder.mkdir()
        self.limactl = self._wrapper("limactl", _FAKE / "limactl", "")
        for name in _QEMUS:
            self._wrapper(name, _FAKE / "qemu", name)
        self.env = {
            "PATH": f"{self.dir / 'bin'}:{environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(user),
            "XDG_STATE_HOME": str(user / "state"),
            "XDG_CACHE_HOME": str(user / "cache"),
            "XDG_DATA_HOME": str(user / "data"),
            "XDG_CONFIG_HOME": str(user / "config"),
            "PYTEST_LIMA_HOME": str(self.home),
            # The same on every host: whether there is a /dev/kvm can't be faked.
            "PYTEST_LIMA_ACCEL": "tcg",
            "PYTEST_LIMA_TIMEOUT_FACTOR": "1",
            "PYTEST_LIMA_TIMEOUT": "20",
        }
        self.unset = [key for key in environ if key.startswith(_STRAY) and key not in self.env]

    def scenario(self, name: str = "ok", **values: Any) -> None:
        """Choose what happens from now on, to all instances without a scenario of their own.

        Args:
            name: One of ``scenarios.SCENARIOS``.
            **values: Single values of ``scenarios.DEFAULTS`` that differ.
        """
        text = json.dumps(scenarios.values(name, values))
        half = self.dir / "scenario.tmp"
        half.write_text(text)
        half.replace(self.dir / "scenario.json")

    def template(
        self, scenario: str | None = None, *, keys: Mapping[str, Any] | None = None, **values: Any
    ) -> str:
        """A template's path, for an instance with a scenario of its own.

        Args:
            scenario: Its name; None: the run's.
            keys: Further keys of the template.
            **values: As for ``scenario``.
        """
        content: dict[str, Any] = {
            "images": [{"location": "https://fake.invalid/disk.qcow2"}], **(keys or {})
        }  # fmt: skip
        if scenario is not None:
            own = json.dumps(scenarios.values(scenario, values))
            content["env"] = {**content.get("env", {}), common.SCENARIO_VARIABLE: own}
        fd, path = tempfile.mkstemp(".yaml", "template-", self.dir)
        with os.fdopen(fd, "w") as file:
            json.dump(content, file)  # JSON is YAML
        return path

    def calls(self, command: str | None = None, program: str = "limactl") -> list[Call]:
        """The calls so far, all or those of one command."""
        entries = [json.loads(line) for line in _lines(self.dir / "calls.jsonl")]
        calls = [Call(one["program"], tuple(one["argv"]), one["env"]) for one in entries]
        return [call for call in calls
                if call.program == program and command in (None, call.command)]  # fmt: skip

    def unknown(self) -> list[str]:
        """Calls the fake has refused, each with the reason."""
        return _lines(self.dir / "unknown-calls")

    def forget_unknown(self) -> None:
        """For a test that has provoked them."""
        (self.dir / "unknown-calls").unlink(missing_ok=True)

    def instances(self) -> list[str]:
        """Names of the instances whose folder is there."""
        if not self.home.exists():
            return []
        return sorted(path.name for path in self.home.iterdir()
                      if path.is_dir() and not path.name.startswith(("_", ".")))  # fmt: skip

    def records(self) -> list[str]:
        """Names of the instances in the ledger."""
        return sorted(
            path.stem for path in (self.dir / "user").rglob("pytest-lima/instances/*.json")
        )

    def processes(self) -> list[int]:
        """Living processes of the fake, its guests, and the engine's children around it."""
        return sorted({*common.pids_with("FAKE_LIMA", str(self.dir)),
                       *common.pids_with("LIMA_HOME", str(self.home))})  # fmt: skip

    def crash(self, name: str) -> None:
        """Kill the VM's process, as an OOM killer would; returns when its host agent saw it."""
        config = json.loads((self.home / name / "fake.json").read_text())
        agent = common.pid_of(self.home / name / "ha.pid")
        common.kill(common.pid_of(self.home / name / common.driver_pidfile(config)))
        self.wait_until(lambda: agent not in self.processes())

    def hold_logins(self, name: str) -> Path:
        """Let nobody in by SSH who isn't already, until the file that this returns is gone."""
        held = self.home / name / common.LOGINS_HELD
        held.touch()
        return held

    def wait_until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait for what other processes have to do; raises when they don't."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not so within {seconds:g} s")
            time.sleep(0.02)

    def assert_clean(self) -> None:
        """Nothing is left: no instance, no snapshot of one, no process, no record."""
        left = {"instances": self.instances(), "pids": self.processes(),
                "snapshots": sorted(path.name for path in self.home.glob("_snapshots/*")),
                "records": self.records()}  # fmt: skip
        if any(left.values()):
            raise AssertionError(f"left: {left}")

    def assert_all_known(self) -> None:
        """No call was refused."""
        if self.unknown():
            raise AssertionError("calls the fake limactl refused:\n" + "\n".join(self.unknown()))

    def close(self) -> None:
        """End what still runs, one process at a time, and remove the folder."""
        for pid in common.pids_with("XDG_STATE_HOME", self.env["XDG_STATE_HOME"]):
            common.kill(pid)  # a reaper that waits for a kept VM to become idle
        for _ in range(3):  # what was being started while the first were killed
            for pid in self.processes():
                common.kill(pid)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.dir)

    def _wrapper(self, name: str, script: Path, argument: str) -> Path:
        """Tells the script its folder, as the engine rightly lets no variable through."""
        path = self.dir / "bin" / name
        path.write_text(
            f"#!/bin/sh\nFAKE_LIMA='{self.dir}' exec '{sys.executable}' -I '{script}' "
            f'{argument} "$@"\n'
        )
        path.chmod(0o755)
        return path


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
