"""What Lima tells a guest at each start: ``cidata.iso`` in the instance's folder.

Lima writes it anew whenever the instance is started (Lima: pkg/cidata/cidata.go). Files lie in it
whole and as they are, so what is looked for is found in its bytes. A guest that boots reads it; one
that wakes up has to be told what has changed.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path

from pytest_lima.errors import StartError

_INSTANCE_ID = re.compile(rb"\binstance-id: (iid-\d+)\n")
_VARIABLE = re.compile(
    rb"^LIMA_CIDATA_(PLAIN|SLIRP_DNS|SLIRP_GATEWAY|UDP_DNS_LOCAL_PORT|TCP_DNS_LOCAL_PORT)"
    rb"=([\d.]*)$",
    re.MULTILINE,
)
_CHAIN = "LIMADNS"
# More than lima.env, where the variables are, has.
_ENV_SIZE = 65536


@dataclass(frozen=True)
class StartData:
    """What is another at each start.

    Attributes:
        instance_id: Lima's id of this start, for which it waits in the guest.
        nat_rules: Input for ``iptables-restore`` that leads the guest's DNS to the ports at which
            the host agent of this start answers; empty where Lima leads it nowhere.
    """

    instance_id: str
    nat_rules: str


def read(instance_dir: Path) -> StartData:
    """What Lima tells the guest at the start that is under way.

    Raises:
        StartError: There is no instance id in it.
    """
    with (
        (instance_dir / "cidata.iso").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        found = _INSTANCE_ID.search(data)
        instance_id = found[1].decode() if found else ""
        # The image may hold an archive of some 100 MiB too.
        begin = max(0, data.find(b"\nLIMA_CIDATA_IID="))
        env = data[begin : begin + _ENV_SIZE]
    if not instance_id:
        raise StartError(f"Lima made no instance id for {instance_dir.name}")
    variables = {name.decode(): value.decode() for name, value in _VARIABLE.findall(env)}
    return StartData(instance_id, _nat_rules(variables))


def _nat_rules(variables: dict[str, str]) -> str:
    """As Lima's boot script makes them (Lima: boot.Linux/09-host-dns-setup.sh)."""
    dns, gateway = variables.get("SLIRP_DNS"), variables.get("SLIRP_GATEWAY")
    if variables.get("PLAIN") or not (dns and gateway):
        return ""  # plain: no boot script of Lima's has run
    rules = [
        f"-A {_CHAIN} -d {dns} -p {kind} -m {kind} --dport 53 "
        f"-j DNAT --to-destination {gateway}:{port}"
        for kind in ("udp", "tcp")
        if int(port := variables.get(f"{kind.upper()}_DNS_LOCAL_PORT") or 0)
    ]
    if not rules:
        return ""
    # Declared again, the chain is empty.
    return "\n".join(["*nat", f":{_CHAIN} - [0:0]", *rules, "COMMIT", ""])
