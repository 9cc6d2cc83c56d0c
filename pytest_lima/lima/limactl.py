"""The one owner of limactl: every call has a deadline, a scrubbed environment and a reader."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_lima import realtime
from pytest_lima.errors import (
    CleanupError,
    LimactlMissingError,
    LimactlVersionError,
    LimaError,
    StartError,
    TemplateError,
)
from pytest_lima.lima import causes, keys, messages, process, sources
from pytest_lima.lima.info import InstanceInfo, parse
from pytest_lima.lima.keys import Keys

MINIMUM = (2, 0, 0)
_QUICK = 60.0
_DELETE = 10.0
_DELETE_TIMEOUT = 5.0

# What limactl may see of our environment. Not SSH (limactl executes it), LIMA_* (they change
# what it does), GITHUB_TOKEN and other secrets (templates could read them). The proxies are
# for its downloads; `propagateProxyEnv: false` keeps them out of the guest.
_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_ALL|TERM|TMPDIR|XDG_CACHE_HOME|SSL_CERT_(FILE|DIR)"
    r"|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY|QEMU_SYSTEM_\w+|LIMA_TEMPLATES_PATH"
)


def find(configured: str | None, path: str | None) -> str:
    """Path of the limactl to run.

    Raises:
        LimactlMissingError: There is none.
    """
    found = shutil.which(str(Path(configured or "limactl").expanduser()), path=path)
    if found is None:
        raise LimactlMissingError(
            f"{configured or 'limactl'} was not found",
            seen=f"PATH={path}",
            remedy="install Lima (https://lima-vm.io), or name it with --lima-limactl",
        )
    return str(Path(found).absolute())  # PATH may have relative folders, and we may go elsewhere


class Limactl:
    """limactl with one LIMA_HOME.

    Attributes:
        path: The executable.
        home: LIMA_HOME.
        env: The environment of its processes.
    """

    def __init__(
        self, path: str, home: Path, environ: Mapping[str, str], extra: Mapping[str, str]
    ) -> None:
        """Take from ``environ`` what limactl may see, and add ``extra``."""
        self.path = path
        self.home = home
        kept = {key: value for key, value in environ.items() if _PASSED.fullmatch(key)}
        self.env = {**kept, **extra, "LIMA_HOME": str(home)}

    def run(self, *args: str, timeout: float = _QUICK) -> process.Completed:
        """Run ``limactl ARGS`` without questions; logs come as JSON lines on stderr.

        Raises:
            LimactlMissingError: It can't be run (any more).
        """
        return self._call(self._argv(*args), timeout)

    def version(self) -> str:
        """The version, such as ``2.2.0``.

        Raises:
            LimactlVersionError: It is older than 2.0.0, or can't be read.
        """
        done = self._call([self.path, "--version"], _QUICK)
        match = re.search(r"(\d+)\.(\d+)\.(\d+)\S*", done.stdout)
        if match is None or not done.ok:
            raise LimactlVersionError(
                "limactl doesn't tell its version",
                ran=f"{self.path} --version",
                seen=complaint(done),
                remedy="reinstall Lima, or name another limactl with --lima-limactl",
            )
        if tuple(map(int, match.groups())) < MINIMUM:
            raise LimactlVersionError(
                f"limactl {match[0]} is too old",
                ran=f"{self.path} --version",
                remedy="install Lima 2.2 or later; the oldest that works is 2.0.0",
            )
        return match[0]

    def template(self, source: str) -> str:
        """The YAML of a template with its bases and files embedded.

        Raises:
            TemplateError: limactl can't read it.
        """
        with sources.readable(source) as found:
            done = self.run("template", "copy", "--embed-all", found.name, "-")
        if done.ok:
            return found.told(done.stdout)
        raise TemplateError(
            f"the template {source} can't be used",
            ran=found.told(" ".join(done.argv)),
            seen=found.told(complaint(done)),
            remedy=causes.remedy(done.stderr, sources.remedy(source, self._templates())),
        )

    def yq(self, template: str, expression: str) -> process.Completed:
        """Have limactl print what an expression makes of a template.

        Its own ``template yq`` fills in defaults first, so the template travels as a text in
        another one.
        """
        with tempfile.TemporaryDirectory(prefix="pytest-lima-") as folder:
            carrier = Path(folder, "carrier.yaml")
            text = base64.b64encode(template.encode()).decode()
            carrier.write_text(json.dumps({"images": [{"location": "/"}], "message": text}))
            expression = f".message | @base64d | from_yaml |\n{expression}"
            return self.run("template", "yq", str(carrier), expression)

    def keys(self, version: str) -> Keys:
        """The keys that this limactl, of that version, knows in a template."""
        if not keys.is_newer(version):
            return keys.LIMA_2_2
        return keys.of_schema(self.run("generate-jsonschema").stdout)

    def _templates(self) -> list[str]:
        """The names of Lima's own templates."""
        done = self.run("create", "--list-templates")
        return done.stdout.split() if done.ok else []

    def create(self, name: str, template: Path, *edits: str, timeout: float) -> None:
        """Make an instance: images are downloaded and copied here.

        Raises:
            StartError: It could not be made; what is left of it still has to be deleted.
        """
        done = self.run("create", f"--name={name}", *edits, str(template), timeout=timeout)
        # Its exit status alone is no instance.
        made = done.ok and (self.home / name / "lima.yaml").exists()
        if not made:
            raise StartError(
                f"limactl could not create {name}",
                ran=" ".join(done.argv),
                seen=complaint(done),
                remedy=self._remedy(done, template),
            )

    def start(self, name: str, log: Path, timeout: float) -> process.Child:
        """Begin to start an instance, with limactl's output in ``log``.

        Not with ``--progress``: in plain mode that never returns.
        """
        with log.open("ab") as file:
            argv = self._argv("start", f"--timeout={timeout:.0f}s", name)
            return process.Child(argv, env=self.env, log=file)

    def inspect(self, name: str) -> InstanceInfo | None:
        """What Lima knows of an instance; None when it knows of none by that name.

        Raises:
            LimaError: limactl's answer can't be read.
        """
        done = self.run("list", "--format=json", name)
        for line in done.stdout.splitlines():
            info = parse(line)
            if info is not None and info.name == name:
                return info
        if "unmatched instances" in done.stderr:
            return None
        raise LimaError(
            f"limactl's list can't be read for {name}",
            ran=" ".join(done.argv),
            seen=complaint(done),
            remedy="see the instance's folder in " + str(self.home),
        )

    def stop(self, name: str, timeout: float) -> None:
        """Shut an instance down; forced when it doesn't end within ``timeout`` seconds.

        Raises:
            CleanupError: It could not be stopped.
        """
        if not self.run("stop", name, timeout=timeout).ok:
            self._check(self.run("stop", "--force", name), CleanupError,
                        f"{name} could not be stopped",
                        f"limactl stop --force {name}")  # fmt: skip

    def delete(self, name: str) -> None:
        """End an instance's processes at once and remove its folder.

        Raises:
            CleanupError: It is still there.
        """
        folder = self.home / name
        if folder.is_dir() and not (folder / "lima.yaml").exists():
            _remove(folder)
            return
        if (folder / "protected").exists():
            self.run("unprotect", name)
        deadline = realtime.monotonic() + _DELETE_TIMEOUT
        done = self.run("delete", "--force", name, timeout=_DELETE)
        while "directory not empty" in done.stderr and realtime.monotonic() < deadline:
            # A host agent that was just being started still writes into the folder: it can be
            # killed, and ends with its folder, as soon as it has written its pid.
            done = self.run("delete", "--force", name, timeout=_DELETE)
        home = shlex.quote(str(self.home))
        self._check(done, CleanupError, f"{name} could not be deleted",
                    f"LIMA_HOME={home} limactl delete --force {name}")  # fmt: skip

    def _call(self, argv: Sequence[str], timeout: float) -> process.Completed:
        try:
            return process.run(argv, env=self.env, timeout=timeout)
        except OSError as error:
            problem = error.strerror
        raise LimactlMissingError(
            f"{self.path} can't be run",
            ran=" ".join(argv),
            seen=problem,
            remedy="reinstall Lima, or name another limactl with --lima-limactl",
        )

    def _argv(self, *args: str) -> list[str]:
        return [self.path, "--tty=false", "--log-format=json", *args]

    def _remedy(self, done: process.Completed, template: Path) -> str:
        if done.returncode is None:
            return "a download may need longer: raise --lima-timeout, or run limactl by hand once"
        said = complaint(done)
        if "expected digest" in said:
            downloads = _downloads(self.env)
            return f"correct the template's digest, or remove the download below {downloads}"
        return causes.remedy(said, f"see what limactl says; it was given {template}")

    def _check(
        self, done: process.Completed, kind: type[LimaError], what: str, remedy: str
    ) -> None:
        if not done.ok:
            raise kind(what, ran=" ".join(done.argv), seen=complaint(done), remedy=remedy)


def _remove(folder: Path) -> None:
    """Remove an instance whose creation was killed: Lima refuses one without a lima.yaml."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        problem = str(error)
    else:
        return
    remedy = f"rm -rf {shlex.quote(str(folder))}"
    raise CleanupError(f"{folder} can't be removed", seen=problem, remedy=remedy)


def _downloads(env: Mapping[str, str]) -> Path:
    """Lima's cache (Go: os.UserCacheDir; Lima: pkg/downloader)."""
    default = "~/Library/Caches" if sys.platform == "darwin" else env.get("XDG_CACHE_HOME")
    return Path(default or "~/.cache", "lima/download").expanduser()


def complaint(done: process.Completed) -> str:
    """What a failed limactl had to say, from its JSON log lines."""
    if done.returncode is None:
        return "it did not end in time and was killed"
    said = messages.complaint(done.stderr) or done.stdout.strip()
    return said or f"exit status {done.returncode}"
