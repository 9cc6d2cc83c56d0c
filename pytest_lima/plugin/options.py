"""From the table of options to pytest's command line, ini file and help, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest

from pytest_lima.settings import OPTIONS, Option, Settings, resolve
from pytest_lima.values import PATHS, located


def declare(parser: pytest.Parser) -> None:
    """Add a flag and an ini key for each row; defaults stay None, to know what was given."""
    group = parser.getgroup("lima", "a real Linux VM for tests, through Lima")
    for option in OPTIONS:
        if option.switch:
            group.addoption(option.flag, dest=option.ini, action="store_const", const="on",
                            default=None, help=option.help)  # fmt: skip
            parser.addini(option.ini, f"{option.help} ({option.flag})", type="string",
                          default=None)  # fmt: skip
            continue
        kind: Literal["linelist", "string"] = "linelist" if option.repeatable else "string"
        group.addoption(
            option.flag,
            dest=option.ini,
            action="append" if option.repeatable else "store",
            default=None,
            metavar=option.metavar,
            help=_help(option),
        )
        parser.addini(
            option.ini,
            f"{option.help} ({option.flag})",
            type=kind,
            default=None,
        )


def settings_of(config: pytest.Config) -> Settings:
    """The options of this run; what is a path is absolute, wherever a test goes later.

    Raises:
        TemplateError: A value that isn't accepted.
    """
    here = config.invocation_params.dir
    return resolve(
        {one.name: _located(one, config.getoption(one.ini), here) for one in OPTIONS},
        {**os.environ, **_located_variables(here)},
        {one.name: _located(one, _from_ini(config, one), here) for one in OPTIONS},
    )


def _from_ini(config: pytest.Config, option: Option) -> object:
    """The ini value; a relative path in it starts at the ini file, wherever pytest runs."""
    value = config.getini(option.ini)
    if option.name not in PATHS or config.inipath is None or not value:
        return value
    return located(option.name, [value] if isinstance(value, str) else value,
                   config.inipath.parent)  # fmt: skip


def _located(option: Option, value: object, folder: Path) -> object:
    """A flag's value, or what is left to do of an ini file's: the user's home directory."""
    if option.name not in PATHS or not value:
        return value
    texts = [value] if isinstance(value, str) else [*value]  # type: ignore[misc]
    return [_at_home(text) for text in located(option.name, texts, folder)]


def _located_variables(folder: Path) -> dict[str, str]:
    """Those of the environment that hold paths."""
    return {
        option.env: "\n".join(_located(option, os.environ[option.env].splitlines(), folder))  # type: ignore[arg-type]
        for option in OPTIONS
        if option.name in PATHS and os.environ.get(option.env, "").strip()
    }


def _at_home(text: str) -> str:
    """With ``~`` written out."""
    return os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111 - a text


def _help(option: Option) -> str:
    default = option.default
    shown = f" (default: {default:g})" if isinstance(default, float) else ""
    if isinstance(default, str):
        shown = f" (default: {default})"
    return f"{option.help}{shown}".replace("%", "%%")
