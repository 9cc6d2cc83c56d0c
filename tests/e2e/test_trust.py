"""The host key of the guest is pinned; what answers with another one is refused."""

from __future__ import annotations

import subprocess

import pytest

from pytest_lima import HostKeyError, Instance

pytestmark = pytest.mark.lima

_KEYS = "/etc/ssh/ssh_host_*_key*"


def test_another_host_key_is_refused(lima: Instance) -> None:
    lima.run(f"mkdir /root/keys && cp -p {_KEYS} /root/keys/", user="root")
    lima.run(f"rm {_KEYS} && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && "
             "(systemctl restart ssh || systemctl restart sshd)", user="root")  # fmt: skip
    lima._link.close()  # as after a broken connection; the forwards have one of their own
    try:
        with pytest.raises(HostKeyError, match="another machine answers"):
            lima.run("true")
    finally:
        trusting = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        put_back = "sudo sh -c 'cp -p /root/keys/* /etc/ssh/; systemctl restart ssh sshd || true'"
        subprocess.run(
            ["ssh", *trusting, "-F", str(lima.ssh_config), f"lima-{lima.name}", put_back],
            check=True,
            capture_output=True,
            timeout=60,
        )
    assert lima.run("echo trusted").stdout == "trusted\n"
