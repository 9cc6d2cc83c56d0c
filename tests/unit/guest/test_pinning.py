"""The first login: by the console's keys, by the first that is shown, or not at all."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pytest_lima.errors import HostKeyError, ReadyTimeoutError
from pytest_lima.guest import pinning
from pytest_lima.guest.hostkeys import FIRST_CONNECTION
from pytest_lima.guest.readiness import Waiting

BLOCK = "-----BEGIN SSH HOST KEY KEYS-----\n{}\n-----END SSH HOST KEY KEYS-----\n"


def waiting(seconds: float = 10.0) -> Waiting:
    return Waiting(time.monotonic() + seconds, lambda: None, lambda: None)


def prints(folder: Path, kind: str, key: str) -> None:
    (folder / "serial.log").write_text(BLOCK.format(f"{kind} {key}"))


def test_the_console_s_keys_are_waited_for_and_pinned(guest, tmp_path) -> None:
    [(kind, key)] = guest.keys.keys.items()
    threading.Timer(0.3, prints, (tmp_path, kind, key)).start()
    begun = time.monotonic()
    connection, keys = pinning.first_login(waiting(), guest.address, tmp_path, lambda: False)
    connection.close()
    assert time.monotonic() - begun >= 0.3
    assert keys.keys == {kind: key}
    assert keys.source.startswith("the console log")


def test_another_key_than_the_console_s_is_not_logged_in_to(guest, tmp_path) -> None:
    [(kind, key)] = guest.keys.keys.items()
    prints(tmp_path, kind, key[:-8] + "AAAAAAA=")
    with pytest.raises(HostKeyError, match="another machine answers"):
        pinning.first_login(waiting(), guest.address, tmp_path, lambda: True)
    assert guest.commands == []


def test_where_none_is_printed_the_first_that_is_shown_is_pinned(
    guest, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(pinning, "_GRACE", 0.2)
    connection, keys = pinning.first_login(waiting(), guest.address, tmp_path, lambda: True)
    connection.close()
    assert keys.keys == guest.keys.keys
    assert keys.source == FIRST_CONNECTION


def test_none_is_trusted_while_lima_may_yet_have_some_printed(guest, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pinning, "_GRACE", 0.0)
    with pytest.raises(ReadyTimeoutError, match="SSH host keys on the console"):
        pinning.first_login(waiting(0.5), guest.address, tmp_path, lambda: False)
