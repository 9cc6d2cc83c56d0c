from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_lima.lima import scripts

SH = shutil.which("dash") or "/bin/sh"
LINE = "192.168.5.2 host.lima.internal"


def first(guest: Path, *, plain: str = "1", gateway: str = "192.168.5.2") -> str:
    """Run it as Lima would, with the guest's folders below ``guest``; what it prints."""
    script = scripts.FIRST
    for path in ("/etc/", "/dev/console"):
        script = script.replace(path, f"{guest}{path}")
    done = subprocess.run(
        [SH, "-c", script],
        env={"PATH": "/usr/bin:/bin", "LIMA_CIDATA_PLAIN": plain,
             "LIMA_CIDATA_SLIRP_GATEWAY": gateway},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 lima-pl-1\n")
    return tmp_path


def test_host_keys_are_on_the_console(guest: Path) -> None:
    (guest / "etc/ssh/ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAA root@x\n")
    first(guest)
    assert (guest / "dev/console").read_text() == (
        "-----BEGIN SSH HOST KEY KEYS-----\nssh-ed25519 AAAA root@x\n"
        "-----END SSH HOST KEY KEYS-----\n"
    )


def test_the_host_has_its_name_in_plain_mode_however_often_it_boots(guest: Path) -> None:
    before = (guest / "etc/hosts").read_text()
    for _ in range(2):
        assert first(guest) == ""
        assert (guest / "etc/hosts").read_text() == f"{before}{LINE}\n"
    # cloud-init may write it anew, and a network of another kind has another gateway.
    (guest / "etc/hosts").write_text(before)
    first(guest)
    first(guest, gateway="192.168.104.2")
    assert (guest / "etc/hosts").read_text() == f"{before}192.168.104.2 host.lima.internal\n"


def test_other_names_stay(guest: Path) -> None:
    text = "10.0.0.1 myhost.lima.internal.test\n10.0.0.2 nothost.lima.internal\n"
    (guest / "etc/hosts").write_text(text)
    first(guest)
    assert (guest / "etc/hosts").read_text() == f"{text}{LINE}\n"


def test_without_plain_mode_it_is_limas_own_to_do(guest: Path) -> None:
    before = (guest / "etc/hosts").read_text()
    first(guest, plain="")
    first(guest, gateway="")
    assert (guest / "etc/hosts").read_text() == before


@pytest.mark.parametrize("there", [False, True])
def test_a_guest_whose_hosts_can_t_be_written_boots_all_the_same(guest: Path, there: bool) -> None:
    (guest / "etc/hosts").unlink()
    if there:
        (guest / "etc/hosts").mkdir()  # as root may write whatever is a file
        assert "host.lima.internal can't be written" in first(guest)
    else:
        first(guest)
        assert (guest / "etc/hosts").read_text() == f"{LINE}\n"
