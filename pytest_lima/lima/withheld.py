"""What a template asks of this host and VMs of tests don't get: taken out, and told in one line.

Each is withheld for a reason (docs/safety.md), and each can be had: the line says how.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pytest_lima.lima import gotemplate, mounts

# Lima's own templates all have it, by `base: template:_default/mounts`: nobody has written it.
_STOCK = "template:"
_STOCK_MOUNTS = ([{"location": "~"}], [{"location": "~", "writable": False}])

# What asks for something, by key and key within, with what it is in tests' VMs.
_SETTINGS: tuple[tuple[str, str, object], ...] = (
    ("ssh", "forwardAgent", False),
    ("ssh", "forwardX11", False),
    ("ssh", "loadDotSSHPubKeys", False),
    ("audio", "device", ""),
    ("video", "display", "none"),
)
_NOTHING = (None, False, "", "none")


def take_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A template with what only one VM or none can have of this host taken out.

    Args:
        raw: As it was.
    """
    filled: dict[str, Any] = {**raw, "mounts": [], "propagateProxyEnv": False}
    for key, inner, value in _SETTINGS:
        filled[key] = {**_mapping(filled.get(key)), inner: value}
    if filled["ssh"].get("localPort"):
        filled["ssh"]["localPort"] = 0  # Lima takes a free one
    networks = raw.get("networks")
    if isinstance(networks, list):
        filled["networks"] = [_without_address(network) for network in networks]
    return filled


def line(
    source: str, raw: Mapping[str, Any], filled: Mapping[str, Any], decided: Collection[str]
) -> str:
    """What to tell; empty where nothing was withheld.

    Args:
        source: Where the template is from.
        raw: It, as it was.
        filled: It, as limactl gets it.
        decided: Keys of which the user has said how they are to be.
    """
    parts = [
        part
        for key, told in (
            ("mounts", _mounts(source, raw)),
            ("ssh", _port(raw)),
            ("networks", _addresses(raw, filled)),
            ("", _settings(raw, decided)),
        )
        if key not in decided
        for part in told
    ]
    if not parts:
        return ""
    return f"the template {source} asks for what the VMs of tests don't get: {'; '.join(parts)}"


def as_python(value: object) -> str:
    """Plain data as one writes it in a conftest.py."""
    text = repr(value)
    return text if '"' in text else text.replace("'", '"')


def _mounts(source: str, raw: Mapping[str, Any]) -> Iterator[str]:
    wanted = raw.get("mounts")
    if not isinstance(wanted, list) or not wanted:
        return
    if source.startswith(_STOCK) and wanted in _STOCK_MOUNTS:
        return
    known = {"Home": "~", "GlobalTempDir": "/tmp", **gotemplate.params(raw.get("param"))}  # noqa: S108
    spelled = [_expanded(mounts.spell(entry), known) for entry in wanted]
    places = " and ".join(text.removesuffix(":w") for text in spelled)
    flags = " ".join(f"--lima-mount={_quoted(text)}" for text in spelled)
    yield (
        f"no mount of {places} (to have it: {flags}, or mounts={as_python(spelled)} in the marker; "
        'if none is needed, lima_overrides with {"mounts": []} says so)'
    )


def _port(raw: Mapping[str, Any]) -> Iterator[str]:
    port = _mapping(raw.get("ssh")).get("localPort")
    if port not in (*_NOTHING, 0, "0"):
        yield f"no ssh.localPort {port} (each has a free one, which lima.ssh_port tells)"


def _addresses(raw: Mapping[str, Any], filled: Mapping[str, Any]) -> Iterator[str]:
    networks = raw.get("networks")
    if isinstance(networks, list) and filled.get("networks") != networks:
        found = [str(n["macAddress"]) for n in networks if _mapping(n).get("macAddress")]
        if found:
            yield f"no macAddress {', '.join(found)} (each has one of its own)"


def _settings(raw: Mapping[str, Any], decided: Collection[str]) -> Iterator[str]:
    wanted: dict[str, Any] = {}
    if raw.get("propagateProxyEnv") and "propagateProxyEnv" not in decided:
        wanted["propagateProxyEnv"] = True
    for key, inner, _ in _SETTINGS:
        value = _mapping(raw.get(key)).get(inner)
        if key not in decided and value not in _NOTHING:
            wanted.setdefault(key, {})[inner] = value
    names = [f"{key}.{inner}" if isinstance(value, dict) else key
             for key, value in wanted.items()
             for inner in (value if isinstance(value, dict) else (key,))]  # fmt: skip
    if wanted:
        yield f"no {', '.join(names)} (to have it: lima_overrides with {as_python(wanted)})"


def _without_address(network: object) -> object:
    if not isinstance(network, Mapping):
        return network
    return {key: value for key, value in network.items() if key != "macAddress"}


def _expanded(text: str, known: Mapping[str, str]) -> str:
    try:
        return gotemplate.expand(text, known)
    except gotemplate.NotANameError:
        return text


def _quoted(text: str) -> str:
    return text if text.startswith("~") and " " not in text else shlex.quote(text)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
