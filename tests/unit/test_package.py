from __future__ import annotations

import inspect

import pytest

import pytest_lima
from pytest_lima import errors


@pytest.mark.parametrize("name", pytest_lima.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(pytest_lima, name).__name__ == name
    assert name in dir(pytest_lima)


def test_every_error_is_public() -> None:
    kinds = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert kinds <= set(pytest_lima.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'pytest_lima' has no attribute 'Instanz'"):
        _ = pytest_lima.Instanz  # type: ignore[attr-defined]
    assert not hasattr(pytest_lima, "shlex")


def test_version_is_a_version() -> None:
    assert [part.isdecimal() for part in pytest_lima.__version__.split(".")[:2]] == [True, True]
