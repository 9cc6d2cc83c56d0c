"""From a spec to the lima.yaml of an instance.

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
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.lima import (
    assignments,
    disks,
    engines,
    hostports,
    lima_yaml,
    mounts,
    params,
    plain,
    reach,
    scripts,
    withheld,
    yaml_text,
)
from pytest_lima.lima.keys import LIMA_2_2, Keys, is_own
from pytest_lima.lima.merging import merge, take_out, without_nulls
from pytest_lima.spec import MachineSpec

# What asks for no driver, architecture or system in particular.
_USUAL = (None, "", "auto", "default")
# Without it every port a guest listens on is bound on the host's 127.0.0.1, where the VMs of
# parallel runs collide. `guestIPMustBeZero` is true by default for 0.0.0.0.
_FORWARD_NOTHING = {
    "guestIP": "0.0.0.0",  # noqa: S104 - a pattern for what isn't forwarded
    "guestIPMustBeZero": False,
    "proto": "any",
    "ignore": True,
}
# The first rule that fits is Lima's, so whatever `--set` makes of the others, this one is last.
LAST_FORWARDS_NOTHING = (
    'del(.portForwards[] | select(.guestIP == "0.0.0.0" and .guestIPMustBeZero == false'
    ' and .proto == "any" and .ignore == true))'
    f" | .portForwards += [{json.dumps(_FORWARD_NOTHING)}]"
)


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
        disks: Names of the disks of Lima's that it has besides its own.
        ssh_port: The port of this host that its SSH has to have; 0: any.
        ports: Further ports of this host that Lima is to forward to it.
        notes: What the user should know about it.
        edits: Options of ``limactl create`` that change it.
    """

    text: str
    key: str
    sockets: Mapping[str, str]
    provision: tuple[tuple[str, str], ...]
    images: tuple[Mapping[str, Any], ...] = ()
    proxied: bool = False
    certificates: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    ssh_port: int = 0
    ports: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()


def wishes(source: str, base: str, spec: MachineSpec) -> tuple[str | None, str | None]:
    """Driver and architecture that are asked for, by whoever it is; None: what is usual here.

    What is applied later goes first: edits, overrides, the spec, and the template last.

    Args:
        source: Where the template is from, for messages.
        base: Its YAML with all bases embedded.
        spec: The machine, with the run's options in it.

    Raises:
        TemplateError: It is no template.
    """
    raw, overrides = _load(source, base), json.loads(spec.overrides)

    def first(key: str, chosen: str | None) -> str | None:
        wished = (assignments.last(key, spec.set), overrides.get(key), chosen, raw.get(key))
        return next((str(one) for one in wished if one not in _USUAL), None)

    return first("vmType", spec.vmtype), first("arch", spec.arch)


def fill(
    source: str,
    base: str,
    spec: MachineSpec,
    *,
    vmtype: str,
    arch: str,
    emulated: bool = False,
    keys: Keys = LIMA_2_2,
) -> FilledTemplate:
    """Merge a template, our safe defaults and a spec.

    Args:
        source: Where the template is from, for messages.
        base: Its YAML with all bases embedded.
        spec: The machine, with the run's options in it.
        vmtype: ``qemu`` or ``vz``.
        arch: The guest's architecture.
        emulated: No hardware runs the guest's instructions.
        keys: Those that this Lima knows.

    Raises:
        TemplateError: It is no template, has keys that Lima would ignore, or reaches outside its
            instance.
    """
    raw, overrides = _load(source, base), json.loads(spec.overrides)
    keys.check(f"the template {source}", raw)
    keys.check("lima_overrides, or overrides=, for " + source, overrides)
    networks = [json.loads(network) for network in spec.networks]
    keys.check(f"networks= for {source}", {"networks": networks})
    raw = without_nulls({key: value for key, value in raw.items() if not is_own(key)})
    filled = withheld.take_out(take_out(raw, overrides))
    if emulated:
        # Lima takes the host's processor wherever there is a /dev/kvm, which emulation refuses.
        filled = merge({"vmOpts": {"qemu": {"cpuType": {arch: "max"}}}}, filled)
    rules = _entries(source, filled, "portForwards")
    brought = engines.docker_socket(rules)
    filled["portForwards"] = [rule for rule in rules if not _is_engine_rule(rule)]
    filled["provision"] = _entries(source, filled, "provision")
    filled["containerd"] = _containerd(filled.get("containerd"))
    _apply_spec(filled, spec, vmtype, arch)
    sockets = _add_engines(filled, spec, brought)
    filled["provision"] = [
        {"mode": "system", "script": scripts.FIRST},
        *filled["provision"],
        *({"mode": "system", "script": script} for script in spec.provision),
    ]
    filled = merge(filled, overrides)
    for key in ("provision", "portForwards"):
        filled[key] = _entries(source, filled, key)
    filled["provision"] = [*filled["provision"], *params.keep_used(raw, filled)]
    _check(source, filled, spec, sockets)
    notes = [withheld.line(source, raw, filled, _decided(raw, overrides, spec))]
    if filled.get("plain") is None:
        filled["plain"] = plain.is_enough(filled, spec.set)
    elif filled["plain"] and filled.get("mounts"):
        notes.append(f"the template {source} says plain: true, in which Lima mounts nothing "
                     '(to have the mounts: lima_overrides with {"plain": False})')  # fmt: skip
    filled["portForwards"] = [*filled["portForwards"], _FORWARD_NOTHING]
    text = yaml_text.write(source, filled)
    # The sockets too: an engine that the template brings leaves no trace in the text.
    decisive = (text, spec.set, spec.param, sorted(sockets.items()), emulated)
    key = hashlib.sha256(repr(decisive).encode()).hexdigest()
    provision = tuple((str(entry.get("mode", "system")), str(entry.get("script") or ""))
                      for entry in filled["provision"])  # fmt: skip
    images = tuple(image for image in _entries(source, filled, "images")
                   if image.get("arch", arch) == arch)  # fmt: skip
    return FilledTemplate(text, key, sockets, provision, images,
                          proxied=bool(filled.get("propagateProxyEnv")),
                          certificates=_files(filled.get("caCerts")),
                          disks=disks.names(filled),
                          ssh_port=hostports.of_ssh(filled), ports=hostports.of_forwards(filled),
                          notes=tuple(note for note in notes if note))  # fmt: skip


def _load(source: str, text: str) -> dict[str, Any]:
    raw = lima_yaml.read(source, text)
    if isinstance(raw, dict) and raw.get("images"):
        return raw
    raise TemplateError(
        f"{source} is not a Lima template",
        seen="it has no images" if isinstance(raw, dict) else "it is not a mapping",
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


def _containerd(asked: object) -> dict[str, Any]:
    """Lima's own is for who asks for it; Lima's default would be a download of 250 MB."""
    settings = dict(asked) if isinstance(asked, Mapping) else {}
    return settings if "user" in settings else {"system": False, "user": False, **settings}


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
    filled["mounts"] = [mounts.parse(text) for text in spec.mounts]


def _check(
    source: str, filled: Mapping[str, Any], spec: MachineSpec, sockets: Mapping[str, str]
) -> None:
    """Refuse what can't work, or must not, before anything is made."""
    system = filled.get("os")
    if system not in (*_USUAL, "Linux"):
        raise TemplateError(
            f"the template {source} makes no Linux guest, and pytest-lima has no others",
            seen=f"os: {system}",
            remedy="take a template with a Linux guest, such as template:ubuntu-lts",
        )
    param = filled.get("param")
    known = {**(param if isinstance(param, Mapping) else {}), **dict(spec.param)}
    reach.refuse(source, {**filled, "param": known})
    for socket in sockets.values():
        engines.require_known(socket, known)


def _decided(
    raw: Mapping[str, Any], overrides: Mapping[str, Any], spec: MachineSpec
) -> frozenset[str]:
    """Keys of a template about which options, marker or overrides say something."""
    edited = {key for key in raw if any(key in edit for edit in spec.set)}
    chosen = {"mounts" for _ in spec.mounts} | {"networks" for _ in spec.networks}
    return frozenset(overrides.keys() | edited | chosen)


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
