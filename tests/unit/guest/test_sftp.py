from __future__ import annotations

import pytest

from pytest_lima.errors import ConnectionLostError


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
