from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.settings import DEFAULT_TEMPLATE, OPTIONS, Settings, resolve

BY_NAME = {option.name: option for option in OPTIONS}
# For each option a text that is accepted, and what it becomes.
GOOD = {
    "vmtype": ("qemu", "qemu"), "template": ("template:debian", ("template:debian",)),
    "set": (".cpus = 3", (".cpus = 3",)), "param": ("A=b=c", ("A=b=c",)), "cpus": ("4", 4),
    "memory": ("512MiB", 0.5), "disk": ("10", 10.0), "mount": ("/srv:w", ("/srv:w",)),
    "arch": ("aarch64", "aarch64"), "accel": ("tcg", "tcg"), "engine": ("both", "both"),
    "timeout": ("90", 90.0), "timeout_factor": ("2.5", 2.5), "start": ("warm", "warm"),
    "host_keys": ("own", "own"), "warm_budget": ("20GiB", 20.0),
    "keep": ("on-failure", "on-failure"), "teardown": ("stop", "stop"),
    "share": ("worker", "worker"), "max_vms": ("3", 3), "standby": ("2", 2),
    "reuse": ("on", True), "idle": ("60", 60.0), "recreate": ("2", 2),
    "timings": ("on", True), "missing": ("skip", "skip"), "home": ("/h", "/h"),
    "limactl": ("/opt/limactl", "/opt/limactl"),
}  # fmt: skip


def test_the_table_and_the_settings_are_the_same_list() -> None:
    names = [field.name for field in fields(Settings) if field.name != "sources"]
    assert [option.name for option in OPTIONS] == names
    assert GOOD.keys() == BY_NAME.keys(), "each option needs a row above"


def test_names_are_made_by_one_rule() -> None:
    option = BY_NAME["timeout_factor"]
    assert option.flag == "--lima-timeout-factor"
    assert option.ini == "lima_timeout_factor"
    assert option.env == "PYTEST_LIMA_TIMEOUT_FACTOR"


def test_nothing_given_is_the_defaults() -> None:
    settings = resolve({}, {}, {})
    for option in OPTIONS:
        assert getattr(settings, option.name) == getattr(Settings(), option.name)
        assert settings.sources[option.name] == "default"


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("source", ["command line", "environment", "ini"])
def test_every_option_from_every_source(name: str, source: str) -> None:
    text, value = GOOD[name]
    option = BY_NAME[name]
    as_list = [text] if option.repeatable else text
    settings = resolve(
        {name: as_list} if source == "command line" else {},
        {option.env: text} if source == "environment" else {},
        {name: as_list} if source == "ini" else {},
    )
    assert getattr(settings, name) == value
    assert settings.sources[name] == source
    assert {value for key, value in settings.sources.items() if key != name} == {"default"}


@pytest.mark.parametrize(
    ("cli", "env", "ini", "value", "source"),
    [
        ("1", "2", "3", 1, "command line"),
        (None, "2", "3", 2, "environment"),
        (None, None, "3", 3, "ini"),
        (None, "", "3", 3, "ini"),
        (None, None, "", None, "default"),
    ],
)
def test_the_nearest_source_wins(cli, env, ini, value, source) -> None:
    variables = {} if env is None else {"PYTEST_LIMA_CPUS": env}
    settings = resolve({"cpus": cli}, variables, {} if ini is None else {"cpus": ini})
    assert (settings.cpus, settings.sources["cpus"]) == (value, source)


def test_sources_are_not_mixed_for_one_option() -> None:
    settings = resolve({"template": ["a"]}, {"PYTEST_LIMA_TEMPLATE": "b"}, {"template": ["c"]})
    assert settings.template == ("a",)


def test_limas_own_variables_are_not_ours() -> None:
    assert resolve({}, {"LIMA_HOME": "/x", "LIMA_CPUS": "8"}, {}) == resolve({}, {}, {})


def test_repeatable_values_are_one_per_line() -> None:
    env = {"PYTEST_LIMA_SET": '\n.a = "x y"\n\n  .b = 1  \n'}
    assert resolve({}, env, {}).set == ('.a = "x y"', ".b = 1")
    assert resolve({}, {}, {"set": "one\ntwo"}).set == ("one", "two")


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("vmtype", "wsl2", "one of auto, vz, qemu"),
        ("vmtype", "QEMU", "one of auto, vz, qemu"),
        ("cpus", "0", "a whole number from 1"),
        ("cpus", "-1", "a whole number from 1"),
        ("cpus", "1.5", "a whole number from 1"),
        ("cpus", "two", "a whole number from 1"),
        ("cpus", "²", "a whole number from 1"),
        ("memory", "0", "a size such as 2, 2GiB or 512MiB"),
        ("memory", "-2", "a size such as"),
        ("memory", "2 TiB", "a size such as"),
        ("memory", "1e3", "a size such as"),
        ("memory", "9" * 400, "a size such as"),
        ("disk", "ten", "a size such as"),
        ("timeout", "0", "a number above 0"),
        ("timeout", "nan", "a number above 0"),
        ("timeout", "inf", "a number above 0"),
        ("timeout", "10s", "a number above 0"),
        ("param", "novalue", "KEY=VALUE"),
        ("param", "1a=b", "KEY=VALUE"),
        ("param", "=b", "KEY=VALUE"),
        ("home", "   ", "a text that is not empty"),
        ("template", "   ", "a text that is not empty"),
    ],
)
def test_a_bad_value_names_its_source_and_what_is_accepted(name, text, accepted) -> None:
    option = BY_NAME[name]
    value = [text] if option.repeatable else text
    for where, sources in (
        (option.flag, ({name: value}, {}, {})),
        (f"{option.ini} in the ini file", ({}, {}, {name: value})),
    ):
        with pytest.raises(TemplateError) as caught:
            resolve(*sources)
        message = str(caught.value)
        assert message.startswith(f"{where}: ")
        assert f"is not accepted; give {accepted}" in message
        assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(TemplateError, match="^PYTEST_LIMA_KEEP: 'maybe' is not accepted"):
        resolve({}, {"PYTEST_LIMA_KEEP": "maybe"}, {})


def test_a_bad_value_in_a_source_that_loses_does_no_harm() -> None:
    assert resolve({"cpus": "2"}, {"PYTEST_LIMA_CPUS": "junk"}, {}).cpus == 2


def test_params_split_at_the_first_equals_sign() -> None:
    settings = resolve({"param": ["A=1", "B=x=y", "A=2", "C="]}, {}, {})
    assert settings.params == {"A": "2", "B": "x=y", "C": ""}


def test_templates_fall_back_to_the_default() -> None:
    assert Settings().templates == (DEFAULT_TEMPLATE,)
    assert Settings(template=("a", "b")).templates == ("a", "b")


def test_settings_are_read_only() -> None:
    settings = resolve({}, {}, {})
    with pytest.raises(FrozenInstanceError):
        settings.cpus = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.sources["cpus"] = "me"  # type: ignore[index]


def test_help_texts_are_one_phrase() -> None:
    for option in OPTIONS:
        assert option.help
        assert not option.help.endswith(".")
        assert option.metavar
