"""The plugin's tests run over the fake limactl in tests/fake."""

from __future__ import annotations

import importlib

import pytest
from fakelima.fixtures import fake_lima as fake_lima

# pytester takes modules back out that a run in this process has imported. These can't be
# imported twice (cryptography's Rust part), or cost more than the run.
for _name in ("cryptography", "filelock", "h2.connection", "paramiko", "platformdirs", "psutil",
              "tenacity", "yaml"):  # fmt: skip
    importlib.import_module(_name)


def pytest_configure(config: pytest.Config) -> None:
    # `pytest_plugins` is for the conftest.py at the root alone.
    config.pluginmanager.import_plugin("pytester")


@pytest.fixture
def pytester(
    pytester: pytest.Pytester, fake_lima: object, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """pytest's, with the fake in the environment of its runs; most are in this process."""
    monkeypatch.setenv("PYTEST_LIMA_VMTYPE", "qemu")  # on a Mac too
    return pytester
