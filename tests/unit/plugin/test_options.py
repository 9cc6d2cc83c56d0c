from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_lima.plugin import options
from pytest_lima.settings import OPTIONS


class Parser:
    """What a plugin may ask of pytest's parser."""

    def __init__(self) -> None:
        self.flags: dict[str, dict] = {}
        self.ini: dict[str, dict] = {}

    def getgroup(self, name: str, description: str):
        return SimpleNamespace(addoption=lambda flag, **rest: self.flags.update({flag: rest}))

    def addini(self, name: str, text: str, **rest) -> None:
        self.ini[name] = rest


def test_every_row_is_a_flag_and_an_ini_key() -> None:
    parser = Parser()
    options.declare(parser)  # type: ignore[arg-type]
    assert set(parser.flags) == {option.flag for option in OPTIONS}
    assert set(parser.ini) == {option.ini for option in OPTIONS}
    for option in OPTIONS:
        assert parser.flags[option.flag]["default"] is None
        action, kind = ("append", "linelist") if option.repeatable else ("store", "string")
        assert parser.flags[option.flag]["action"] == action
        assert parser.ini[option.ini]["type"] == kind


@pytest.mark.parametrize(
    ("name", "shown"),
    [("timeout", "(default: 600)"), ("keep", "(default: never)"), ("cpus", "of virtual CPUs")],
)
def test_help_has_the_default(name: str, shown: str) -> None:
    parser = Parser()
    options.declare(parser)  # type: ignore[arg-type]
    assert parser.flags[f"--lima-{name}"]["help"].endswith(shown)


def option(name: str):
    return next(one for one in OPTIONS if one.name == name)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("home", "vms", ["/project/vms"]),
        ("home", "/abs", ["/abs"]),
        ("home", "~/vms", ["~/vms"]),
        ("mount", ["src", "out:w", "~/x:w"], ["/project/src", "/project/out:w", "~/x:w"]),
        ("template", ["template:docker", "vm.yaml", "https://x/y.yaml"],
         ["template:docker", "/project/vm.yaml", "https://x/y.yaml"]),
        ("limactl", "tools/limactl", ["/project/tools/limactl"]),
        ("limactl", "limactl-nightly", ["limactl-nightly"]),
        ("cpus", "4", "4"),
        ("set", [".a = 1"], [".a = 1"]),
        ("home", None, None),
        ("template", [], []),
    ],
)  # fmt: skip
def test_relative_paths_of_an_ini_file_begin_at_it(name: str, value, expected) -> None:
    config = SimpleNamespace(getini=lambda key: value, inipath=Path("/project/pytest.ini"))
    assert options._from_ini(config, option(name)) == expected  # type: ignore[arg-type]
    bare = SimpleNamespace(getini=lambda key: value, inipath=None)
    assert options._from_ini(bare, option(name)) == value  # type: ignore[arg-type]
