from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lima.errors import StartError
from pytest_lima.lima import cidata
from pytest_lima.lima.cidata import StartData

ENV = """\
LIMA_CIDATA_IID=iid-1795545823
LIMA_CIDATA_SLIRP_DNS=192.168.5.3
LIMA_CIDATA_SLIRP_GATEWAY=192.168.5.2
LIMA_CIDATA_SLIRP_IP_ADDRESS=192.168.5.15
LIMA_CIDATA_UDP_DNS_LOCAL_PORT=51234
LIMA_CIDATA_TCP_DNS_LOCAL_PORT=40321
LIMA_CIDATA_PLAIN=
"""


def read(folder: Path, env: str = ENV, meta: str = "instance-id: iid-1795545823\n") -> StartData:
    image = (
        b"\0" * 4096
        + meta.encode()
        + b"local-hostname: x\n"
        + b"\0" * 99
        + b"LIMA_CIDATA_DEBUG=false\n"
        + env.encode()
    )
    (folder / "cidata.iso").write_bytes(image + b"\0" * 4096)
    return cidata.read(folder)


def test_the_instance_id_is_found_in_the_image(tmp_path: Path) -> None:
    assert read(tmp_path).instance_id == "iid-1795545823"
    with pytest.raises(StartError, match="no instance id"):
        read(tmp_path, meta="")


def test_dns_leads_to_the_host_agent_of_this_start(tmp_path: Path) -> None:
    assert read(tmp_path).nat_rules.splitlines() == [
        "*nat",
        ":LIMADNS - [0:0]",
        "-A LIMADNS -d 192.168.5.3 -p udp -m udp --dport 53"
        " -j DNAT --to-destination 192.168.5.2:51234",
        "-A LIMADNS -d 192.168.5.3 -p tcp -m tcp --dport 53"
        " -j DNAT --to-destination 192.168.5.2:40321",
        "COMMIT",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [("PLAIN=", "PLAIN=1"), ("SLIRP_DNS=192.168.5.3", "SLIRP_DNS="), (ENV, ""),
     ("UDP_DNS_LOCAL_PORT=51234\nLIMA_CIDATA_TCP_DNS_LOCAL_PORT=40321",
      "UDP_DNS_LOCAL_PORT=0\nLIMA_CIDATA_TCP_DNS_LOCAL_PORT=0")],
    ids=["plain", "no-slirp", "none", "no-resolver"],
)  # fmt: skip
def test_where_lima_leads_it_nowhere_there_are_no_rules(tmp_path: Path, old: str, new: str) -> None:
    assert read(tmp_path, ENV.replace(old, new)).nat_rules == ""
