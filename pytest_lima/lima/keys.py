"""The keys of a lima.yaml: Lima only warns of one that it doesn't know, and boots without it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_lima.errors import TemplateError

_FILE = "location arch digest"
_LOCATOR = "url digest"
# Of Lima 2.2: the keys of each mapping, by where it is.
_STRUCTS: Mapping[str, str] = {
    "": "base minimumLimaVersion vmType vmOpts os arch images cpuType cpus memory disk "
    "additionalDisks mounts mountTypesUnsupported mountType mountInotify ssh firmware audio video "
    "provision upgradePackages containerd guestInstallPrefix probes portForwards copyToHost "
    "message networks env param dns hostResolver propagateProxyEnv caCerts rosetta plain timezone "
    "nestedVirtualization user tpm osOpts",
    "base[]": _LOCATOR,
    "images[]": f"{_FILE} kernel initrd variant",
    "images[].kernel": f"{_FILE} cmdline",
    "images[].initrd": _FILE,
    "additionalDisks[]": "name format fsType fsArgs",
    "mounts[]": "location mountPoint writable sshfs 9p virtiofs",
    "mounts[].sshfs": "cache followSymlinks sftpDriver",
    "mounts[].9p": "securityModel protocolVersion msize cache",
    "mounts[].virtiofs": "queueSize",
    "ssh": "localPort loadDotSSHPubKeys forwardAgent forwardX11 forwardX11Trusted overVsock",
    "firmware": "legacyBIOS images",
    "firmware.images[]": f"{_FILE} vmType",
    "audio": "device interface",
    "video": "display vnc",
    "video.vnc": "display",
    "provision[]": "mode skipDefaultDependencyResolution script file playbook content overwrite "
    "owner path permissions expression format",
    "provision[].file": _LOCATOR,
    "containerd": "system user archives",
    "containerd.archives[]": _FILE,
    "probes[]": "mode description script file hint",
    "probes[].file": _LOCATOR,
    "portForwards[]": "guestIPMustBeZero guestIP guestPort guestPortRange guestSocket hostIP "
    "hostPort hostPortRange hostSocket proto reverse ignore static",
    "copyToHost[]": "guest host deleteOnStop",
    "networks[]": "lima socket vzNAT macAddress interface metric",
    "hostResolver": "enabled ipv6 hosts",
    "caCerts": "removeDefaults files certs",
    "rosetta": "enabled binfmt",
    "user": "name comment home shell uid passwordlessSudo",
}
_NEWEST = (2, 2)


@dataclass(frozen=True)
class Keys:
    """The keys of one version of Lima.

    Attributes:
        structs: The keys of each mapping, by its path, ``[]`` for a list's entries; a mapping that
            isn't in here may have any.
    """

    structs: Mapping[str, frozenset[str]]

    def check(self, who: str, given: Mapping[str, Any], below: str = "") -> None:
        """Refuse keys that Lima would ignore.

        Args:
            who: Who gave them, for the message.
            given: A template, or a part of one.
            below: Where in a template it stands.

        Raises:
            TemplateError: There are some; the message has all of them, and what was meant.
        """
        unknown = self._unknown(given, below, below)
        if unknown:
            raise TemplateError(
                f"{who} has keys that Lima doesn't know, and would ignore",
                seen="; ".join(unknown),
                remedy="correct or remove them; at the top a key of your own begins with x-",
            )

    def _unknown(self, value: Any, kind: str, path: str) -> list[str]:
        if isinstance(value, list):
            found = []
            for place, item in enumerate(value):
                found += self._unknown(item, f"{kind}[]", f"{path}[{place}]")
            return found
        known = self.structs.get(kind)
        if known is None or not isinstance(value, Mapping):
            return []
        found = []
        for key, item in value.items():
            if key in known:
                inner = f"{kind}.{key}".lstrip(".")
                found += self._unknown(item, inner, f"{path}.{key}".lstrip("."))
            elif kind or not is_own(key):
                found.append(f"{path}.{key}".lstrip(".") + _meant(str(key), known))
        return found


def is_own(key: str) -> bool:
    """Whether a key at a template's top is its author's: a place for anchors, as in Compose."""
    return key.startswith("x-")


def _meant(key: str, known: frozenset[str]) -> str:
    lower = {name.lower(): name for name in sorted(known)}
    near = difflib.get_close_matches(key.lower(), lower, n=1)
    return f" (did you mean {lower[near[0]]}?)" if near else ""


LIMA_2_2 = Keys({path: frozenset(keys.split()) for path, keys in _STRUCTS.items()})


def is_newer(version: str) -> bool:
    """Whether that Lima may know keys that aren't in `LIMA_2_2`."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    return tuple(numbers) > _NEWEST


def of_schema(text: str) -> Keys:
    """From what ``limactl generate-jsonschema`` prints; `LIMA_2_2` where that can't be read."""
    try:
        schema = json.loads(text)
        root = schema["$defs"]["LimaYAML"]
        structs: dict[str, frozenset[str]] = {}
        _walk(root, schema["$defs"], "", structs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return LIMA_2_2
    return Keys(structs)


def _walk(
    node: Mapping[str, Any], defs: Mapping[str, Any], path: str, structs: dict[str, frozenset[str]]
) -> None:
    if "$ref" in node:
        _walk(defs[node["$ref"].rpartition("/")[2]], defs, path, structs)
    for inner in node.get("oneOf", ()):
        _walk(inner, defs, path, structs)
    if "items" in node:
        _walk(node["items"], defs, f"{path}[]", structs)
    if "properties" in node:
        structs[path] = frozenset(node["properties"])
        for key, inner in node["properties"].items():
            _walk(inner, defs, f"{path}.{key}".lstrip("."), structs)
