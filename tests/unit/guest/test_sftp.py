from __future__ import annotations

import pytest

from pytest_lima.errors import ConnectionLostError, LimaError


def test_sftp_is_one_client(connection) -> None:
    with connection.sftp() as one:
        pass
    with connection.sftp() as other:
        assert other is one


def test_sftp_is_had_again_when_its_server_has_died(connection) -> None:
    with connection.sftp() as one:
        pass
    one.get_channel().close()
    with pytest.raises(ConnectionLostError), connection.sftp() as same:
        same.stat("/")
    with connection.sftp() as other:
        assert other.stat("/").st_mode


def test_a_guest_without_it_is_told_as_that(connection, guest, monkeypatch) -> None:
    """Its connection stands."""
    server = guest.transports[-1]
    monkeypatch.delitem(server.subsystem_table, "sftp")
    with pytest.raises(LimaError, match="no SFTP server") as caught, connection.sftp():
        pass
    assert type(caught.value) is LimaError
    assert connection.alive
