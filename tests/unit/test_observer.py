from __future__ import annotations

import logging

import pytest

from pytest_lima.observer import Observer


def test_the_plain_observer_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pytest_lima")
    observer = Observer()
    observer.phase("pl-1", "booting")
    observer.tick("[    0.000000] Linux version 6.12")
    observer.ready("pl-1", 12.34)
    observer.failed("pl-2")
    observer.warn("100% emulated")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "pl-1: booting"),
        ("INFO", "pl-1: ready after 12.3 s"),
        ("INFO", "pl-2: failed"),
        ("WARNING", "100% emulated"),
    ]
