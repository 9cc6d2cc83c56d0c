from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_lima.errors import ConnectionLostError
from pytest_lima.guest import sockets
from pytest_lima.guest.address import Address
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.sockets import SocketForward, ssh_command
from pytest_lima.lima import paths

GUEST_SOCKETS = {"docker": "/run/docker.sock", "containerd": "/run/containerd/containerd.sock"}


@pytest.fixture
def folder(guest, short_path: Path) -> Path:
    """Our folder of an instance, with the guest's key pinned."""
    instance = short_path / "pl-1"
    instance.mkdir()
    folder = paths.our_folder(instance)
    guest.keys.write_known_hosts(folder / "known_hosts", "pl-1")
    return folder


@pytest.fixture
def forward(guest, folder, tools_env) -> Iterator[SocketForward]:
    one = SocketForward(guest.address, folder, GUEST_SOCKETS, tools_env)
    yield one
    one.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_socket_is_there_and_only_this_users(forward, folder) -> None:
    assert forward.sockets == {name: folder / f"{name}.sock" for name in GUEST_SOCKETS}
    assert mode_of(folder) == 0o700
    for path in forward.sockets.values():
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert mode_of(path) == 0o600


def test_one_more_for_once_that_is_forgotten_at_once_or_with_the_others(
    guest, folder, tools_env
) -> None:
    for forgets in (True, False):
        one = SocketForward(guest.address, folder, {}, tools_env, "/run/once.sock")
        assert one.sockets == one.targets == {}
        assert one.once.parent == folder and mode_of(one.once) == 0o600
        if forgets:
            one.forget()
            assert not one.once.exists()
        one.close()
        assert not one.once.exists()


def test_their_paths_are_no_longer_than_limas_own(tmp_path) -> None:
    """So a LIMA_HOME that is short enough for Lima is for us."""
    folder = tmp_path / "pl-12345678" / "pl"
    lima = tmp_path / "pl-12345678" / "ssh.sock.1234567890123456"
    assert all(len(str(folder / f"{name}.sock")) <= len(str(lima)) for name in GUEST_SOCKETS)


def test_close_ends_ssh_and_removes_the_sockets(forward, gone) -> None:
    pid = forward._child.pid
    forward.close()
    assert gone(pid)
    assert not any(path.exists() for path in forward.sockets.values())
    forward.close()


def test_a_socket_that_was_left_behind_is_replaced(forward, guest, folder, tools_env) -> None:
    os.kill(forward._child.pid, 9)
    forward._child.wait(10)
    assert (folder / "docker.sock").exists()
    again = SocketForward(guest.address, folder, GUEST_SOCKETS, tools_env)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(again.sockets["docker"]))
    finally:
        again.close()


def test_another_host_key_gets_no_login(guest, folder, tools_env) -> None:
    other = HostKeys({"ssh-ed25519": guest.host_key.get_base64()[:-8] + "AAAAAAAA"}, "x")
    other.write_known_hosts(folder / "known_hosts", "pl-1")
    with pytest.raises(ConnectionLostError, match="sockets can't be forwarded") as caught:
        SocketForward(guest.address, folder, GUEST_SOCKETS, tools_env)
    assert "Host key verification failed" in str(caught.value)
    assert f"log: {folder / 'ssh-forward.log'}" in str(caught.value)
    assert not any(transport.is_authenticated() for transport in guest.transports)
    assert list(folder.glob("*.sock")) == []


def test_a_folder_that_takes_no_sockets(guest, folder, tools_env) -> None:
    (folder / "docker.sock").mkdir()
    with pytest.raises((ConnectionLostError, OSError), match="docker.sock"):
        SocketForward(guest.address, folder, GUEST_SOCKETS, tools_env)


def test_an_ssh_that_does_not_get_on_is_ended(guest, folder, tool, tools_env, said, gone, tmp_path,
                                              monkeypatch) -> None:  # fmt: skip
    monkeypatch.setattr(sockets, "_LISTEN_TIMEOUT", 0.5)
    tool("ssh", f"echo $$ >>'{tmp_path}/pid'; exec sleep 60")
    with pytest.raises(ConnectionLostError, match="no answer from ssh"):
        SocketForward(guest.address, folder, GUEST_SOCKETS, tools_env)
    assert gone(*said(tmp_path / "pid"))


def test_ctrl_c_while_it_begins_leaves_no_process(
    guest, folder, tool, tools_env, said, gone, tmp_path, monkeypatch
) -> None:
    tool("ssh", f"echo $$ >>'{tmp_path}/pid'; exec sleep 60")

    def interrupt(path: Path) -> bool:
        if not (tmp_path / "pid").exists():
            return False
        raise KeyboardInterrupt

    monkeypatch.setattr(sockets, "_is_private_socket", interrupt)
    with pytest.raises(KeyboardInterrupt):
        SocketForward(guest.address, folder, GUEST_SOCKETS, tools_env)
    assert gone(*said(tmp_path / "pid"))


def test_a_socket_that_others_may_open_counts_as_none(tmp_path, short_path) -> None:
    path = short_path / "s"
    assert not sockets._is_private_socket(path)
    path.write_text("")
    assert not sockets._is_private_socket(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o660)
        assert not sockets._is_private_socket(path)
        path.chmod(0o600)
        assert sockets._is_private_socket(path)


def test_the_command_has_nothing_of_the_users(folder) -> None:
    argv = ssh_command(Address(60022, "ann", Path("/key")), folder)
    assert argv[:8] == ["ssh", "-F", "/dev/null", "-i", "/key", "-p", "60022", argv[7]]
    assert argv[-1] == "ann@127.0.0.1"
    assert {
        "-oStrictHostKeyChecking=yes", "-oGlobalKnownHostsFile=/dev/null", "-oIdentityAgent=none",
        "-oIdentitiesOnly=yes", "-oForwardAgent=no", "-oBatchMode=yes", "-oHostKeyAlias=pl-1",
    } <= set(argv)  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "with space", "quo'te"])
def test_the_command_logs_in_from_a_folder_of_any_name(
    guest, short_path, tools_env, name: str
) -> None:
    instance = short_path / name / "pl-1"
    instance.mkdir(parents=True)
    folder = paths.our_folder(instance)
    guest.keys.write_known_hosts(folder / "known_hosts", "pl-1")
    key = folder / "user"
    key.write_bytes(guest.address.key.read_bytes())
    key.chmod(0o600)
    argv = [*ssh_command(replace(guest.address, key=key), folder), "echo hello"]
    done = subprocess.run(argv, env=tools_env, capture_output=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == (b"hello\n", b"")


def test_a_folder_with_a_space_has_its_sockets(guest, short_path, tools_env) -> None:
    (short_path / "a b" / "pl-1").mkdir(parents=True)
    folder = paths.our_folder(short_path / "a b" / "pl-1")
    guest.keys.write_known_hosts(folder / "known_hosts", "pl-1")
    one = SocketForward(guest.address, folder, GUEST_SOCKETS, tools_env)
    assert all(path.exists() for path in one.sockets.values())
    one.close()
