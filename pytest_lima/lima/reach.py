"""What a template would do outside its instance, as templates are code that runs on the host too.

`copyToHost` writes host files, Lima removes whatever lies at a `hostSocket`, `mode: ansible`
runs a playbook. Each refusal says how to do without.
"""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.lima import gotemplate
from pytest_lima.lima.withheld import as_python

# In place of paths of this host, for hostSocket. No path that one can write has a NUL in it.
_LIMA_HOME = "/\0home"
_INSTANCE = "\0instance"
_HOST = {
    "Dir": f"{_LIMA_HOME}/{_INSTANCE}",
    "Name": _INSTANCE,
    "Instance": _INSTANCE,  # Lima's older words
    "LimaHome": _LIMA_HOME,
    "User": "\0user",
    "UID": "0",
    "Home": "/\0users/\0user",
    "TempDir": "/\0tmp",
    "GlobalTempDir": "/\0tmp",
}
_VNC_DEFAULT = "127.0.0.1:0,to=9"
_LONGEST_LIFT = 300


@dataclass(frozen=True)
class _Reach:
    """One thing that is outside.

    Attributes:
        why: What it does there.
        lift: The override that takes it out.
        remedy: How to do without where no override does.
    """

    why: str
    lift: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = ""


def refuse(source: str, filled: Mapping[str, Any]) -> None:
    """Refuse a template that writes, runs or opens something on this host.

    Args:
        source: Where it is from, for the message.
        filled: Its mapping, with ``provision`` and ``portForwards`` lists of mappings.

    Raises:
        TemplateError: It does; the message has all that it would do, and the override that takes
            it out.
    """
    found = [*_files(filled), *_scripts(filled), *_forwards(filled), *_screen(filled)]
    if not found:
        return
    lift = {key: value for one in found for key, value in one.lift.items()}
    remedies = dict.fromkeys(one.remedy for one in found if one.remedy)
    if lift:
        how = f"overrides={as_python(lift)}"
        remedies[f"do without it by {how} in the marker, or as the fixture lima_overrides"] = None
    raise TemplateError(
        f"the template {source} reaches outside its instance",
        seen="; ".join(dict.fromkeys(one.why for one in found)),
        remedy="; ".join(remedies),
    )


def _files(filled: Mapping[str, Any]) -> Iterator[_Reach]:
    if filled.get("copyToHost"):
        yield _Reach("copyToHost writes files on this host", {"copyToHost": []})
    if filled.get("base"):  # limactl has embedded that of the template
        yield _Reach(
            "base in the overrides brings in what nobody has looked at",
            remedy="make a template with that base, and take base out of the overrides",
        )
    for key in ("provision", "probes"):
        entries = filled.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping) and entry.get("file"):  # as with base
                yield _Reach(
                    f"{key} with file lets limactl read a file that nobody has looked at",
                    remedy="give the file's text as script (content with mode: data) instead",
                )


def _scripts(filled: Mapping[str, Any]) -> Iterator[_Reach]:
    if any(str(entry.get("mode")).strip() == "ansible" for entry in filled["provision"]):
        yield _Reach(
            "provision mode ansible runs a playbook on this host",
            remedy="take that entry out of a copy of the template, and run ansible-playbook in a "
            "fixture, with lima.ssh_config",
        )


def _forwards(filled: Mapping[str, Any]) -> Iterator[_Reach]:
    values = {**_HOST, **gotemplate.params(filled.get("param"))}
    harmless, reasons = [], []
    for rule in filled["portForwards"]:
        found = [*_socket(rule, values), *_network(rule)]
        reasons += found
        if not found:
            harmless.append(rule)
    lift = {"portForwards": harmless}
    if len(as_python(lift)) > _LONGEST_LIFT:
        lift = {"portForwards": []}
    yield from (_Reach(why, lift) for why in reasons)


def _socket(rule: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[str]:
    socket = str(rule.get("hostSocket") or "")
    if socket and not _is_inside(socket, values):
        yield f"Lima removes what lies at hostSocket {socket}"
    if rule.get("reverse"):
        yield "a reverse forward gives the guest a socket of this host"


def _is_inside(socket: str, values: Mapping[str, str]) -> bool:
    """Whether Lima will find the path in the folder of the instance, whatever that is."""
    try:
        path = gotemplate.expand(socket, values)
    except gotemplate.NotANameError:
        return False
    # Lima takes a relative one for one in the instance's folder of sockets.
    whole = posixpath.normpath(posixpath.join(_HOST["Dir"], "sock", path))
    return whole.startswith(_HOST["Dir"] + "/")


def _network(rule: Mapping[str, Any]) -> Iterator[str]:
    address = rule.get("hostIP")
    if address in (None, "") or (rule.get("ignore") and not rule.get("static")):
        return
    try:
        inside = _is_loopback(str(address))
    except ValueError:
        yield f"hostIP {address} is no IP address, such as 127.0.0.1"
    else:
        if not inside:
            yield f"hostIP {address} opens the guest to the network"


def _is_loopback(address: str) -> bool:
    if "%" in address:
        raise ValueError("Lima takes no zones")
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    return found.is_loopback


def _screen(filled: Mapping[str, Any]) -> Iterator[_Reach]:
    """What QEMU would do; `none` and no device are forced on templates, so overrides ask for it."""
    video, audio = (_mapping(filled.get(key)) for key in ("video", "audio"))
    kind, _, address = str(video.get("display") or "").partition("=")
    if kind.strip().partition(",")[0] == "vnc":
        address = address or str(_mapping(video.get("vnc")).get("display") or _VNC_DEFAULT)
        if not _is_private(address.partition(",")[0].strip()):
            yield _Reach(
                f"video.vnc.display {address} is none that this host alone can reach",
                {"video": {"display": "vnc", "vnc": {"display": _VNC_DEFAULT}}},
            )
    if str(audio.get("device") or "").partition(",")[0].strip() == "wav":
        yield _Reach("audio.device wav writes a file on this host", {"audio": {"device": "none"}})


def _is_private(display: str) -> bool:
    """Whether a VNC server listens on this host alone: ``HOST:NUMBER``, or nowhere."""
    host = display.rpartition(":")[0].strip("[]")
    try:
        return display == "none" or host == "localhost" or _is_loopback(host)
    except ValueError:
        return False


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
