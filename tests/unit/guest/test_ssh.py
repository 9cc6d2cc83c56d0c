from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace

import pytest

from pytest_lima.errors import ConnectionLostError, HostKeyError
from pytest_lima.guest import ssh
from pytest_lima.guest.hostkeys import HostKeys
from pytest_lima.guest.ssh import NotYetError, connect


def test_connect_with_the_pinned_key(guest) -> None:
    connection = connect(guest.address, guest.keys)
    assert connection.alive
    assert connection.host_key == f"ssh-ed25519 {guest.host_key.get_base64()}"
    connection.close()
    assert not connection.alive


def test_no_pinned_key_takes_what_answers_and_tells_which(guest) -> None:
    connection = connect(guest.address, None)
    kind, key = connection.host_key.split()
    assert {kind: key} == guest.keys.keys
    connection.close()


@pytest.mark.parametrize(
    "keys", [{"ssh-ed25519": "AAAA"}, {}, {"ecdsa-sha2-nistp256": "AAAA", "ssh-ed25519": "BBBB"}]
)
def test_another_host_key_gets_nothing_from_us(guest, keys) -> None:
    with pytest.raises(HostKeyError) as caught:
        connect(guest.address, HostKeys(keys, "the console log /x/serial.log"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "another machine answers in place of the guest"
    assert lines[1] == f"  ran: ssh ann@127.0.0.1 -p {guest.address.port}"
    assert "not in the console log /x/serial.log" in lines[2]
    assert not any(transport.is_authenticated() for transport in guest.transports)


def test_a_key_of_a_type_the_server_has_not(guest) -> None:
    """Whatever the library makes of it, it's no connection."""
    with pytest.raises(ConnectionLostError):
        connect(guest.address, HostKeys({"ssh-rsa": "AAAA"}, "x"))


def test_a_login_that_is_refused_is_not_yet(guest) -> None:
    guest.accepts = False
    with pytest.raises(NotYetError, match=r"no SSH on 127.0.0.1:\d+ as ann") as caught:
        connect(guest.address, guest.keys)
    assert "AuthenticationException" in (caught.value.seen or "")
    guest.accepts = True
    connect(guest.address, guest.keys).close()


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_without_ssh_is_not_yet(guest, answer: bytes | None) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        one, _ = listener.accept()
        with one:
            one.sendall(answer or b"")

    if answer is None:
        listener.close()
    else:
        thread = threading.Thread(target=serve)
        thread.start()
    with pytest.raises(NotYetError):
        connect(replace(guest.address, port=port), guest.keys)
    if answer is not None:
        thread.join()
        listener.close()


def test_a_missing_login_key_is_not_yet(guest, tmp_path) -> None:
    with pytest.raises(NotYetError, match="FileNotFoundError"):
        connect(replace(guest.address, key=tmp_path / "none"), guest.keys)


def deadline(seconds: float = 20) -> float:
    return time.monotonic() + seconds


@contextlib.contextmanager
def session(connection, line: str, until: float):
    with connection.slot(until), connection.channel(until) as channel:
        channel.exec_command(line)
        yield channel


def output_of(channel) -> bytes:
    return channel.makefile("rb").read()


def test_sessions_run_commands(connection) -> None:
    with session(connection, "echo one; cat", deadline()) as channel:
        channel.sendall(b"two")
        channel.shutdown_write()
        assert output_of(channel) == b"one\ntwo"
        assert channel.recv_exit_status() == 0


def test_more_commands_than_sessions_queue(connection) -> None:
    held = [session(connection, "cat", deadline()) for _ in range(8)]
    for one in held:
        one.__enter__()
    with pytest.raises(TimeoutError), session(connection, "true", deadline(0.05)):
        pytest.fail("the ninth may not run")
    with connection.channel(deadline()) as channel:
        channel.exec_command("echo aside")
        assert output_of(channel) == b"aside\n"
    held.pop().__exit__(None, None, None)
    with session(connection, "echo ninth", deadline()) as channel:
        assert output_of(channel) == b"ninth\n"
    for one in held:
        one.__exit__(None, None, None)


def test_a_session_that_failed_is_free_again(connection) -> None:
    for _ in range(20):
        with pytest.raises(ZeroDivisionError), session(connection, "cat", deadline(5)):
            raise ZeroDivisionError


@pytest.mark.parametrize(
    "use",
    [
        lambda connection: session(connection, "true", deadline()),
        lambda connection: connection.channel(deadline()),
        lambda connection: connection.sftp(),
    ],
)
def test_what_needs_a_lost_connection_says_so(guest, connection, use) -> None:
    connection.close()
    with pytest.raises(ConnectionLostError, match="the SSH connection to the guest is gone"):
        with use(connection):
            pytest.fail("there is no connection")


def test_the_librarys_tracebacks_stay_out_of_the_log(guest, caplog) -> None:
    guest.accepts = False
    with caplog.at_level("DEBUG"), pytest.raises(NotYetError):
        connect(guest.address, guest.keys)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert ssh.NotYetError.__mro__[1] is ConnectionLostError
