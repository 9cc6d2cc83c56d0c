"""What a template would do outside its instance, as templates are code that runs on the host too.

`copyToHost` writes host files, Lima removes whatever lies at a `hostSocket`, `mode: ansible`
runs a playbook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_lima.errors import TemplateError


def refuse(source: str, filled: Mapping[str, Any]) -> None:
    """Refuse a template that writes, runs or opens something on this host.

    Args:
        source: Where it is from, for the message.
        filled: Its mapping, with ``provision`` and ``portForwards`` lists of mappings.

    Raises:
        TemplateError: It does; the message has all that it would do.
    """
    reasons = []
    if filled.get("copyToHost"):
        reasons.append("copyToHost writes files on this host")
    if any(entry.get("mode") == "ansible" for entry in filled["provision"]):
        reasons.append("provision mode ansible runs a playbook on this host")
    for rule in filled["portForwards"]:
        socket = str(rule.get("hostSocket") or "")
        inside = socket.removeprefix("{{.Dir}}/")
        if socket and (inside == socket or ".." in inside or "{{" in inside):
            reasons.append(f"Lima removes what lies at hostSocket {socket}")
        if rule.get("reverse"):
            reasons.append("a reverse forward gives the guest a socket of this host")
        if str(rule.get("hostIP") or "127.0.0.1") not in ("127.0.0.1", "::1"):
            reasons.append(f"hostIP {rule['hostIP']} opens the guest to the network")
    if reasons:
        raise TemplateError(
            f"the template {source} reaches outside its instance",
            seen="; ".join(reasons),
            remedy="remove that from the template; forwards of our own exist for sockets",
        )
