"""limactl's commands, with exactly the flags the engine uses; anything else is refused."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakelima import common, lifecycle, templates
from fakelima.calling import config_of, fatal, flags_of, folder_of, hang, one, say
from fakelima.common import refuse

_GLOBALS = ["--tty=false", "--log-format=json"]
# What may reach limactl, written down a second time on purpose. The last line is what shells,
# Python and macOS add by themselves.
_ENVIRON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_ALL|TERM|TMPDIR|XDG_CACHE_HOME|SSL_CERT_FILE|SSL_CERT_DIR"
    r"|(http|https|no|all)_proxy|(HTTP|HTTPS|NO|ALL)_PROXY|QEMU_SYSTEM_[A-Z0-9_]+"
    r"|LIMA_TEMPLATES_PATH|LIMA_HOME|FAKE_LIMA"
    r"|PWD|OLDPWD|SHLVL|_|LC_CTYPE|__CF_USER_TEXT_ENCODING|__PYVENV_LAUNCHER__"
)


def main(argv: list[str]) -> None:
    """Run one limactl; ends by SystemExit like the real one."""
    if argv[:1] == ["hostagent"]:
        from fakelima import agent

        agent.main(argv[1:])
        return
    common.record("limactl", argv)
    _check_environ()
    if argv == ["--version"]:
        hang("version")
        print(f"limactl version {common.scenario()['version']}")
        return
    if argv[:2] != _GLOBALS or len(argv) < 3:
        refuse("not the flags every call of the engine has")
    command = _COMMANDS.get(argv[2])
    if command is None:
        refuse("a command the engine doesn't use")
    if argv[2] not in ("create", "start"):  # those hang in the middle of their work
        hang(argv[2])
    command(argv[3:])


def _check_environ() -> None:
    stray = [key for key in os.environ if not _ENVIRON.fullmatch(key)]
    if stray:
        refuse(f"variables that should have been kept from it: {stray}")
    home = os.environ.get("LIMA_HOME", "")
    if not Path(home).is_absolute():
        refuse(f"LIMA_HOME={home!r}")


def _template(args: list[str]) -> None:
    if args[:1] == ["yq"] and len(args) == 3:
        _yq(Path(args[1]), args[2])
        return
    if args[:2] != ["copy", "--embed-all"] or len(args) != 4 or args[3] != "-":
        refuse("not `template copy --embed-all SOURCE -`")
    try:
        sys.stdout.write(templates.read(args[2]))
    except (OSError, ValueError) as error:
        fatal(str(error))


def _yq(carrier: Path, expression: str) -> None:
    """Apply the expressions to the template that is the message of another, one a line."""
    first, *rest = expression.split("\n")
    if first != ".message | @base64d | from_yaml |":
        refuse("not an expression about a template in a template")
    text = base64.b64decode(json.loads(carrier.read_text())["message"]).decode()
    try:
        print(templates.edit(text, [line.removeprefix("| ") for line in rest]))
    except ValueError as error:
        fatal(str(error))


def _validate(args: list[str]) -> None:
    _, rest = flags_of(args)
    try:
        templates.resolve(templates.read(one(rest, "file")), [], {}, vz=True)
    except (OSError, ValueError) as error:
        fatal(str(error))


def _list(args: list[str]) -> None:
    flags, rest = flags_of(args, "--format")
    if flags != {"--format": ["json"]}:
        refuse("list needs --format=json")
    home = Path(os.environ["LIMA_HOME"])
    there = [path for path in sorted(home.iterdir()) if path.is_dir() and path.name[0] not in "._"]
    missing = [name for name in rest if not folder_of(name).is_dir()]
    for folder in there:
        if not rest or folder.name in rest:
            print(json.dumps(_facts(folder), separators=(",", ":")))
    for name in missing:
        say("warning", f"No instance matching {name} found.")
    if missing:
        fatal("unmatched instances")


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": folder.name, "hostname": "", "dir": str(folder),
        "status": lifecycle.status_of(folder), "vmType": "", "arch": "",
        "protected": (folder / "protected").exists(),
    }  # fmt: skip
    if not (folder / "lima.yaml").exists():
        return facts
    config = config_of(folder)
    port = re.search(r"Port (\d+)", _text(folder / "ssh.config"))
    return {
        **facts,
        "hostname": f"lima-{folder.name}", "vmType": config["vmType"], "arch": config["arch"],
        "cpus": config["cpus"], "memory": templates.size(config["memory"]),
        "disk": templates.size(config["disk"]),
        **({"sshLocalPort": int(port[1])} if port else {}),
        "sshConfigFile": str(folder / "ssh.config"),
        "hostAgentPID": common.pid_of(folder / "ha.pid"),
        "driverPID": common.pid_of(folder / common.driver_pidfile(config)),
        "config": config, "sshAddress": "127.0.0.1", "limaVersion": "2.2.0",
        "LimaHome": str(folder.parent), "IdentityFile": str(folder.parent / "_config" / "user"),
    }  # fmt: skip


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _protection(args: list[str], *, wanted: bool) -> None:
    folder = folder_of(one(args))
    if not (folder / "lima.yaml").exists():
        fatal(f"failed to inspect instance `{folder.name}`: no such file or directory")
    if wanted:
        (folder / "protected").touch()
    else:
        (folder / "protected").unlink(missing_ok=True)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "template": _template,
    "validate": _validate,
    "create": lifecycle.create,
    "start": lifecycle.start,
    "list": _list,
    "stop": lifecycle.stop,
    "delete": lifecycle.delete,
    "protect": lambda args: _protection(args, wanted=True),
    "unprotect": lambda args: _protection(args, wanted=False),
}
