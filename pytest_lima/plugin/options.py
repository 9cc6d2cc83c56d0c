"""From the table of options to pytest's command line, ini file and help, and back."""

from __future__ import annotations

import os
from typing import Literal

import pytest

from pytest_lima.settings import OPTIONS, Option, Settings, resolve

_PATHS = ("template", "mount", "home", "limactl")


def declare(parser: pytest.Parser) -> None:
    """Add a flag and an ini key for each row; defaults stay None, to know what was given."""
    group = parser.getgroup("lima", "a real Linux VM for tests, through Lima")
    for option in OPTIONS:
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
    """The options of this run.

    Raises:
        TemplateError: A value that isn't accepted.
    """
    return resolve(
        {option.name: config.getoption(option.ini) for option in OPTIONS},
        os.environ,
        {option.name: _from_ini(config, option) for option in OPTIONS},
    )


def _from_ini(config: pytest.Config, option: Option) -> object:
    """The ini value; a relative path in it starts at the ini file, wherever pytest runs."""
    value = config.getini(option.ini)
    if option.name not in _PATHS or config.inipath is None or not value:
        return value
    folder = config.inipath.parent
    texts = [value] if isinstance(value, str) else value
    return [str(folder / text) if _is_path(option, text) else text for text in texts]


def _is_path(option: Option, text: str) -> bool:
    """Whether it's a path from here: no absolute one, no ``template:NAME``, no URL."""
    if option.name == "limactl" and "/" not in text:
        return False  # looked for on PATH, as on the command line
    return not text.startswith("~") and ":" not in text.removesuffix(":w")


def _help(option: Option) -> str:
    default = option.default
    shown = f" (default: {default:g})" if isinstance(default, float) else ""
    if isinstance(default, str):
        shown = f" (default: {default})"
    return f"{option.help}{shown}".replace("%", "%%")
