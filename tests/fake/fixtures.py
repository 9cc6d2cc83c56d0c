"""The ``fake_lima`` fixture; a conftest imports it from here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
if str(_HERE) not in sys.path:
    sys.path.append(str(_HERE))

from fakelima.control import FakeLima  # noqa: E402

__all__ = ["FakeLima", "fake_lima"]


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
            monkeypatch.setenv("PYTHONPATH", str(_HERE / "not_root"), prepend=os.pathsep)
        yield fake
        fake.assert_all_known()
    finally:
        fake.close()
