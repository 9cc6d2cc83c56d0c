from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from pytest_lima.guest import hostkeys
from pytest_lima.guest.hostkeys import HostKeys

BEGIN = "-----BEGIN SSH HOST KEY KEYS-----"
END = "-----END SSH HOST KEY KEYS-----"


def key(number: int, length: int = 51) -> str:
    return base64.b64encode(bytes([number]) * length).decode()


ED, RSA, EC = (
    f"ssh-ed25519 {key(1)}",
    f"ssh-rsa {key(2, 279)}",
    f"ecdsa-sha2-nistp256 {key(3, 104)}",
)


def block(*lines: str) -> str:
    return "\n".join([BEGIN, *lines, END, ""])


def pinned(folder: Path, text: str) -> dict[str, str] | None:
    (folder / "serial.log").write_bytes(text.encode())
    found = hostkeys.from_console(folder)
    return None if found is None else dict(found.keys)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Debian GNU/Linux 13 debian ttyS0\nlogin: ",
        BEGIN,
        f"{BEGIN}\n{ED} root@vm\n",
        f"{BEGIN}\n{ED} root@vm\n-----END SSH HOST",
        f"{ED}\n{END}\n",
        f"{ED}\n",
        block(),
        block("ssh-ed25519"),
        block("ssh-ed25519 AAAA"),
        block(f"ssh-dss {key(4)}"),
        block(f"ssh-ed25519-cert-v01@openssh.com {key(4)}"),
        block(f"xssh-ed25519 {key(4)}"),
    ],
)
def test_keys_that_are_not_whole_are_not_there_yet(tmp_path: Path, text: str) -> None:
    assert pinned(tmp_path, text) is None


def test_no_console_no_keys(tmp_path: Path) -> None:
    assert hostkeys.from_console(tmp_path) is None


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("prefix", ["", "ci-info: ", "<14>Nov 23 10:00:00 cloud-init: "])
@pytest.mark.parametrize("suffix", ["", " root@lima-pl-1"])
def test_a_block_as_consoles_have_it(tmp_path: Path, newline, prefix, suffix) -> None:
    lines = [BEGIN, *(key + suffix for key in (ED, RSA, EC)), END]
    text = newline.join(["[    1.2] booting", *(prefix + line for line in lines), "login: "])
    assert pinned(tmp_path, text) == {
        "ssh-ed25519": key(1), "ssh-rsa": key(2, 279), "ecdsa-sha2-nistp256": key(3, 104)
    }  # fmt: skip


def test_the_last_whole_block_counts(tmp_path: Path) -> None:
    new = f"ssh-ed25519 {key(9)}"
    assert pinned(tmp_path, block(ED, RSA) + block(new)) == {"ssh-ed25519": key(9)}
    assert pinned(tmp_path, block(new) + f"{BEGIN}\n{ED}\n") == {"ssh-ed25519": key(9)}
    # A guest that died while printing, and printed again when it came back.
    assert pinned(tmp_path, f"{BEGIN}\n{ED[:40]}\n" + block(new)) == {"ssh-ed25519": key(9)}


def test_keys_with_words_of_the_kernel_in_between(tmp_path: Path) -> None:
    text = block(ED, "[    9.1] random: crng init done", EC)
    assert pinned(tmp_path, text) == {"ssh-ed25519": key(1), "ecdsa-sha2-nistp256": key(3, 104)}


def test_a_console_of_any_length_and_kind(tmp_path: Path) -> None:
    noise = "\x1b[2J\x00\x07" * 100_000
    assert pinned(tmp_path, noise + block(ED) + noise[:1000]) == {"ssh-ed25519": key(1)}
    (tmp_path / "serial.log").write_bytes(b"\xff\xfe" * 1000 + block(ED).encode() + b"\xff")
    assert hostkeys.from_console(tmp_path) is not None
    assert pinned(tmp_path, BEGIN * 10_000 + "ssh-ed25519 " * 5_000) is None


def test_where_they_are_from_is_told(tmp_path: Path) -> None:
    (tmp_path / "serialv.log").write_text(block(ED))
    found = hostkeys.from_console(tmp_path)
    assert found is not None
    assert found.source == f"the console log {tmp_path / 'serialv.log'}"


def test_known_hosts_for_openssh(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    for number in (1, 2):
        HostKeys({"ssh-ed25519": key(number), "ssh-rsa": "B"}, "x").write_known_hosts(path, "pl-1")
    assert path.read_text() == f"pl-1 ssh-ed25519 {key(2)}\npl-1 ssh-rsa B\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
