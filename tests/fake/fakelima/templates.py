"""Templates as limactl sees them: the few with a name, files, and what one resolves to."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakelima.common import lima_user, refuse

_ARCH = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())
_IMAGES = f"images: [{{location: 'https://fake.invalid/disk.qcow2', arch: {_ARCH}}}]\n"
_DOCKER = """\
portForwards:
- guestSocket: /run/docker.sock
  hostSocket: '{{.Dir}}/sock/docker.sock'
provision:
- mode: system
  script: |
    #!/bin/sh
    systemctl start docker.service
"""
_NAMED = {"ubuntu-lts": _IMAGES, "debian": _IMAGES, "docker-rootful": _IMAGES + _DOCKER}
_MOVED = re.compile(r"del\(\.portForwards\[\] \| select\(.*\)\) \| \.portForwards \+= (\[.*\])")
_ASSIGNMENT = re.compile(r"\.([A-Za-z]+(?:\.[A-Za-z]+|\[\d+\])*)\s*=\s*(.+)")
_UNITS = {"MiB": 1024**2, "GiB": 1024**3}


def read(source: str) -> str:
    """The YAML behind ``template:NAME`` or a path.

    Raises:
        OSError: No such file, said as limactl says it.
        ValueError: No such name.
    """
    scheme, _, name = source.partition(":")
    if scheme == "template":
        if name.removeprefix("//") not in _NAMED:
            raise ValueError(f"template `{name}.yaml` not found")
        return _NAMED[name.removeprefix("//")]
    if "://" in source:
        raise ValueError(f"failed to download {source}: the fake has no network")
    stem = Path(source).name.lower().removesuffix(".yml").removesuffix(".yaml")
    if len(stem) > 76 or not re.fullmatch("[a-z0-9]+(?:[._-][a-z0-9]+)*", stem):
        raise ValueError(f"filename `{source}` is invalid: identifier `{stem}` must match ^[A-Za-z")
    if not Path(source).exists():
        raise ValueError(f"open {source}: no such file or directory")
    return Path(source).read_text()


def names() -> list[str]:
    """Those of `limactl create --list-templates`."""
    return sorted(_NAMED)


def resolve(
    text: str, sets: Sequence[str], params: Mapping[str, str], *, vz: bool
) -> dict[str, Any]:
    """What ``limactl list`` shows as ``config``.

    Raises:
        ValueError: limactl would refuse it.
    """
    import yaml

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"failed to unmarshal YAML: {error}") from None
    if not isinstance(config, dict) or not config.get("images"):
        raise ValueError("field `images` must be set")
    for key, value in params.items():
        if key not in (config.get("param") or {}):
            raise ValueError(
                f"error while processing flag `param`: template does not define param `{key}`"
            )
        config["param"][key] = value
    for expression in sets:
        _assign(config, expression)
    for image in config["images"]:
        location = image["location"]
        if location.startswith("/") and not Path(location).exists():
            raise ValueError(f"failed to download the image: open {location}: no such file")
    mac = sys.platform == "darwin"
    config = {"vmType": "vz" if mac else "qemu", "arch": _ARCH, "cpus": 4, "memory": "4GiB",
              "disk": "100GiB", "plain": False, **config}  # fmt: skip
    if config["vmType"] not in ("qemu", "vz") or (config["vmType"] == "vz" and not (mac or vz)):
        raise ValueError(f"unknown or unsupported VM type: {config['vmType']}")
    user = lima_user()
    config["user"] = {"name": user, "comment": "", "home": f"/home/{user}.guest",
                      "shell": "/bin/sh", "uid": os.getuid() or 1001,
                      **(config.get("user") or {})}  # fmt: skip
    return config


def edit(text: str, expressions: Sequence[str]) -> str:
    """A template with expressions applied to it.

    Raises:
        ValueError: As limactl refuses one.
    """
    import yaml

    config = yaml.safe_load(text)
    for expression in expressions:
        param = re.fullmatch(r'\.param\["(\w+)"\] = (".*")', expression)
        if param:
            config["param"][param[1]] = json.loads(param[2])
        else:
            _assign(config, expression)
    return json.dumps(config)


def _assign(config: dict[str, Any], expression: str) -> None:
    """Plain assignments are all the yq there is in here, and one rule that is moved to the end."""
    moved = _MOVED.fullmatch(expression)
    if moved:
        [rule] = json.loads(moved[1])
        rules = config.get("portForwards") or []
        config["portForwards"] = [*(one for one in rules if one != rule), rule]
        return
    match = _ASSIGNMENT.fullmatch(expression.strip())
    if match is None and not expression.startswith("."):
        raise ValueError(f"1:1: lexer: invalid input text {json.dumps(expression)}")
    if match is None:
        refuse(f"the fake's yq can't do {expression!r}")
    *parents, last = match[1].replace("[", ".").replace("]", "").split(".")
    for key in parents:
        config = config[int(key)] if isinstance(config, list) else config.setdefault(key, {})
    try:
        config[last] = json.loads(match[2])
    except ValueError:
        raise ValueError(f"1:9: lexer: invalid input text {json.dumps(match[2])}") from None


def size(text: str | float) -> int:
    """Bytes of ``2GiB``; a number is bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(MiB|GiB)?", str(text))
    if match is None:
        raise ValueError(f"invalid size {text!r}")
    return int(float(match[1]) * _UNITS.get(match[2] or "", 1))
