"""Cold start until Docker answers: this plugin against the script it replaces.

Run it with ``scripts/engine run python benchmarks/cold.py [PAIRS]``. Each pair boots the same
template twice, by hand and by pytest, in turns; that the plugin keeps the VM for warm starts is
part of its time.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from table import Row, show

TEMPLATE = os.environ.get("PYTEST_LIMA_TEMPLATE", "template:ubuntu-lts")
DEADLINE = 1200

# What people have in their own templates: Docker's socket for the user, forwarded by Lima.
BY_HAND = {
    "mounts": [],
    "containerd": {"system": False, "user": False},
    "provision": [
        {
            "mode": "system",
            "script": "#!/bin/bash\nset -eu\n"
            "command -v dockerd || { apt-get update && apt-get install -y docker.io; }\n"
            "d=/etc/systemd/system/docker.socket.d\n"
            "[ -e $d/override.conf ] || { mkdir -p $d\n"
            "printf '[Socket]\\nSocketUser=%s\\n' {{.User}} >$d/override.conf\n"
            "systemctl daemon-reload; systemctl restart docker.socket; }\n",
        }
    ],
    "portForwards": [
        {"guestSocket": "/run/docker.sock", "hostSocket": "{{.Dir}}/sock/docker.sock"}
    ],
}
TEST = """
import time
def test_it(lima_docker_host):
    print("DOCKER ANSWERS AT", time.time())
"""


def by_hand(folder: Path) -> float:
    """Seconds of ``limactl start`` and a loop around ``/_ping``."""
    home = folder / "hand"
    env = {**os.environ, "LIMA_HOME": str(home)}
    copied = subprocess.run(
        ["limactl", "template", "copy", "--embed-all", TEMPLATE, "-"],
        env=env, check=True, capture_output=True,
    )  # fmt: skip
    path = folder / "hand.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(copied.stdout), **BY_HAND}))
    begun = time.time()
    try:
        subprocess.run(
            ["limactl", "--tty=false", "start", "--name=hand", str(path)],
            env={**env, **_emulation()}, check=True, capture_output=True, timeout=DEADLINE,
        )  # fmt: skip
        address = home / "hand" / "sock" / "docker.sock"
        while not _answers(address):
            if time.time() - begun > DEADLINE:
                sys.exit("docker never answered the hand script")
            time.sleep(0.2)
        return time.time() - begun
    finally:
        subprocess.run(["limactl", "delete", "--force", "hand"], env=env, capture_output=True)


def by_plugin(folder: Path) -> float:
    """Seconds from starting pytest to the first line of its first test."""
    test = folder / "test_it.py"
    test.write_text(TEST)
    env = {**os.environ, "PYTEST_LIMA_HOME": str(folder / "ours")}
    shutil.rmtree(folder / "ours" / "_golden", ignore_errors=True)  # nothing to wake up from
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", f"--rootdir={folder}", str(test)],
        env=env, cwd=folder, check=True, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    return float(done.stdout.split("DOCKER ANSWERS AT")[1].split()[0]) - begun


def _answers(address: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(address))
            client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in client.recv(100)
    except OSError:
        return False


def _emulation() -> dict[str, str]:
    """What a hand script needs on a machine whose KVM can't be used, too."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK) or not Path("/dev/kvm").exists():
        return {}
    qemu = "qemu-system-x86_64 -machine q35,vmport=off -accel tcg,thread=multi"
    return {"QEMU_SYSTEM_X86_64": qemu}


def rows(pairs: int) -> list[Row]:
    """Boot in turns, print as it goes."""
    hand: list[float] = []
    ours: list[float] = []
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as folder:
        for number in range(pairs):
            turns = [(hand, by_hand), (ours, by_plugin)]
            for times, measure in turns if number % 2 == 0 else reversed(turns):
                times.append(measure(Path(folder)))
            print(f"by hand {hand[-1]:6.1f} s   by pytest-lima {ours[-1]:6.1f} s", flush=True)
    return [Row("cold start", "`limactl start` and `/_ping`", "s", ours, hand)]


if __name__ == "__main__":
    show(rows(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
