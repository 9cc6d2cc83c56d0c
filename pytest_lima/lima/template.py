"""From a spec to the lima.yaml of an instance; the one owner of yaml.

Templates are code that runs on the host too (`copyToHost` writes host files, Lima removes
whatever lies at a `hostSocket`, `mode: ansible` runs a playbook), so what reaches outside the
instance is refused. The defaults that let a guest see the host are forced: what a test needs
of the host it asks for with ``mounts`` or ``lima_overrides``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.lima import engines, libraries, reach
from pytest_lima.spec import MachineSpec

_SIZE_LIMIT = 1024 * 1024

# cloud-init prints the host keys when everything else is done, some images never do. This
# prints the same block first, so that SSH can be pinned while provisioning goes on.
_ANNOUNCE_HOST_KEYS = """\
#!/bin/sh
{
  echo "-----BEGIN SSH HOST KEY KEYS-----"
  cat /etc/ssh/ssh_host_*_key.pub
  echo "-----END SSH HOST KEY KEYS-----"
} >/dev/console 2>/dev/null || true
"""

_SAFE: dict[str, Any] = {
    "mounts": [],
    "propagateProxyEnv": False,
    "ssh": {"forwardAgent": False, "forwardX11": False, "loadDotSSHPubKeys": False},
    "audio": {"device": ""},
    "video": {"display": "none"},
}
# Without it every port a guest listens on is bound on the host's 127.0.0.1, where the VMs of
# parallel runs collide. `guestIPMustBeZero` is true by default for 0.0.0.0.
_FORWARD_NOTHING = {
    "guestIP": "0.0.0.0",  # noqa: S104 - a pattern for what isn't forwarded
    "guestIPMustBeZero": False,
    "proto": "any",
    "ignore": True,
}


@dataclass(frozen=True)
class FilledTemplate:
    """What is handed to ``limactl create``.

    Attributes:
        text: The YAML.
        key: Hash of everything that decides what the machine is.
        sockets: Guest socket of each engine that was asked for; may hold Lima's ``{{.UID}}``,
            ``{{.User}}`` and ``{{.Home}}``.
        provision: Mode and script of each provision entry, in Lima's order.
        images: Those for the guest's architecture; Lima takes the first that it can get.
        proxied: Lima gives the guest the proxies of this host.
        certificates: Files of this host that the guest gets.
    """

    text: str
    key: str
    sockets: Mapping[str, str]
    provision: tuple[tuple[str, str], ...]
    images: tuple[Mapping[str, Any], ...] = ()
    proxied: bool = False
    certificates: tuple[str, ...] = ()


def fill(
    source: str, base: str, spec: MachineSpec, *, vmtype: str, arch: str, emulated: bool = False
) -> FilledTemplate:
    """Merge a template, our safe defaults and a spec.

    Args:
        source: Where the template is from, for messages.
        base: Its YAML with all bases embedded.
        spec: The machine, with the run's options in it.
        vmtype: ``qemu`` or ``vz``.
        arch: The guest's architecture.
        emulated: No hardware runs the guest's instructions.

    Raises:
        TemplateError: It is no template, or one that reaches outside its instance.
    """
    raw = _load(source, base)
    filled = _merge(raw, _SAFE)
    if emulated:
        # Lima takes the host's processor wherever there is a /dev/kvm, which emulation refuses.
        filled = _merge({"vmOpts": {"qemu": {"cpuType": {arch: "max"}}}}, filled)
    rules = _entries(source, filled, "portForwards")
    brought = engines.docker_socket(rules)
    filled["portForwards"] = [rule for rule in rules if not _is_engine_rule(rule)]
    filled["provision"] = _entries(source, filled, "provision")
    if "containerd" not in raw:
        filled["containerd"] = {"system": False, "user": False}
    _apply_spec(filled, spec, vmtype, arch)
    sockets = _add_engines(filled, spec, brought)
    filled["provision"] = [
        {"mode": "system", "script": _ANNOUNCE_HOST_KEYS},
        *filled["provision"],
        *({"mode": "system", "script": script} for script in spec.provision),
    ]
    filled = _merge(filled, json.loads(spec.overrides))
    for key in ("provision", "portForwards"):
        filled[key] = _entries(source, filled, key)
    reach.refuse(source, filled)
    if "plain" not in filled:
        filled["plain"] = not _needs_guest_agent(filled)
    filled["portForwards"] = [*filled["portForwards"], _FORWARD_NOTHING]
    text = _dump(filled)
    # The sockets too: an engine that the template brings leaves no trace in the text.
    decisive = (text, spec.set, spec.param, sorted(sockets.items()))
    key = hashlib.sha256(repr(decisive).encode()).hexdigest()
    provision = tuple((str(entry.get("mode", "system")), str(entry.get("script") or ""))
                      for entry in filled["provision"])  # fmt: skip
    images = tuple(image for image in _entries(source, filled, "images")
                   if image.get("arch", arch) == arch)  # fmt: skip
    certificates = filled.get("caCerts")
    return FilledTemplate(text, key, sockets, provision, images,
                          proxied=bool(filled.get("propagateProxyEnv")),
                          certificates=_files(certificates))  # fmt: skip


def prepare() -> None:
    """Load PyYAML, which another thread must not do at the same time.

    invoke, which paramiko loads where it is installed, begins with the inner half of PyYAML
    (``yaml._yaml``); Python takes two threads that meet there for a deadlock.
    """
    libraries.load(["yaml"])


def _load(source: str, text: str) -> dict[str, Any]:
    import yaml  # loaded on use: a run without a VM doesn't pay for it

    if len(text) > _SIZE_LIMIT:
        raise TemplateError(f"the template {source} is larger than 1 MiB")
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error)  # ValueError: a date that doesn't exist
    else:
        if isinstance(raw, dict) and raw.get("images"):
            return raw
        problem = "it has no images" if isinstance(raw, dict) else "it is not a mapping"
    raise TemplateError(
        f"{source} is not a Lima template",
        seen=problem,
        remedy="give a template: name, a path or a URL that `limactl create` accepts",
    )


def _entries(source: str, filled: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = filled.get(key)
    if entries is None:
        return []
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        return entries
    raise TemplateError(
        f"{key} is not a list of mappings",
        seen=repr(entries),
        remedy=f"mend it in {source}, or in the overrides",
    )


def _files(certificates: object) -> tuple[str, ...]:
    found = certificates.get("files") if isinstance(certificates, dict) else None
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _dump(filled: Mapping[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(dict(filled), sort_keys=False, allow_unicode=True)
    return text


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on ``base``: mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _apply_spec(filled: dict[str, Any], spec: MachineSpec, vmtype: str, arch: str) -> None:
    filled["vmType"] = vmtype
    filled["arch"] = arch
    if spec.cpus:
        filled["cpus"] = spec.cpus
    if spec.memory:
        filled["memory"] = f"{spec.memory * 1024:.0f}MiB"
    if spec.disk:
        filled["disk"] = f"{spec.disk * 1024:.0f}MiB"
    if spec.networks:
        filled["networks"] = [json.loads(network) for network in spec.networks]
    filled["mounts"] = [_mount(text) for text in spec.mounts]


def _mount(text: str) -> dict[str, Any]:
    writable = text.endswith(":w")
    named = text.removesuffix(":w").strip()
    path = Path(named).expanduser()
    if not named or not path.is_dir():  # an empty one would be the current directory
        raise TemplateError(
            f"the mount {text!r} is not a directory on this host",
            remedy="give an existing directory, with :w at the end to make it writable",
        )
    return {"location": str(path.resolve()), "writable": writable}


def _is_engine_rule(rule: Mapping[str, Any]) -> bool:
    """Lima's forward of the engine's socket: ours takes its place."""
    return engines.docker_socket([rule]) is not None


def _add_engines(filled: dict[str, Any], spec: MachineSpec, brought: str | None) -> dict[str, str]:
    """Where the engines that were asked for listen, with scripts for those to be provided."""
    sockets = {}
    for engine in sorted(spec.engines):
        if engine == engines.DOCKER and brought:
            sockets[engine] = brought
            continue
        sockets[engine] = engines.SOCKETS[engine]
        script = engines.provision_script(engine)
        filled["provision"] = [*filled["provision"], {"mode": "system", "script": script}]
    return sockets


def _needs_guest_agent(filled: Mapping[str, Any]) -> bool:
    """Whether plain mode, which saves the guest agent and Lima's boot scripts, would miss it."""
    containerd = filled.get("containerd") or {}
    return bool(
        filled.get("mounts")
        or filled.get("portForwards")
        or filled.get("probes")
        or filled.get("networks")
        or filled.get("additionalDisks")
        or containerd.get("system")
        or containerd.get("user")
        or any(entry.get("mode") in ("yq", "dependency") for entry in filled["provision"])
    )
