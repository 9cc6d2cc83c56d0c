"""The ``fake_lima`` fixture, to be imported; pytest's ``pythonpath`` leads here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakelima.control import FakeLima

_NOT_ROOT = Path(__file__).resolve().parents[1] / "not_root"


@pytest.fixture
def fake_lima(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLima]:
    """A Lima that boots in a second, for this process and for those it starts.

    Fails the test that made the engine call something a real limactl wouldn't take.
    """
    fake = FakeLima(os.environ)
    try:
        for key in fake.unset:
            monkeypatch.delenv(key)
        for key, value in fake.env.items():
            monkeypatch.setenv(key, value)
        if os.geteuid() == 0:
            # The engine refuses root as limactl does; containers of CI often have nobody else.
            monkeypatch.setattr(os, "geteuid", lambda: 1001)
            monkeypatch.setenv("PYTHONPATH", str(_NOT_ROOT), prepend=os.pathsep)
        yield fake
        fake.assert_all_known()
    finally:
        fake.close()
