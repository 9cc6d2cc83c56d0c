from __future__ import annotations

import pytest

from pytest_lima import values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2.0), ("2G", 2.0), ("2GiB", 2.0), ("2gb", 2.0), (" 2 GiB ", 2.0), ("1.5", 1.5),
        ("512M", 0.5), ("512mib", 0.5), ("1536MB", 1.5),
    ],
)  # fmt: skip
def test_sizes(text: str, value: float) -> None:
    assert values.gib(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), ("ON", True), (" yes ", True), ("1", True), ("off", False), ("false", False)],
)
def test_switches(text: str, value: bool) -> None:
    assert values.switch(text) is value


def test_a_pair_is_taken_as_it_is() -> None:
    assert values.pair("A=b=c \n d") == "A=b=c \n d"


def test_space_around_a_text_is_dropped() -> None:
    assert values.not_empty(" /h \n") == "/h"


def test_a_count_may_be_none() -> None:
    assert values.count(" 0 ") == 0
    assert values.at_least_one("1") == 1


@pytest.mark.parametrize(
    ("parse", "texts", "accepted"),
    [
        (values.gib, ["", "0", "-2", "2 TiB", "1e3", "9" * 400], "a size such as 2, 2GiB"),
        (values.at_least_one, ["0", "-1", "1.5", "two", "²"], "a whole number from 1"),
        (values.count, ["-1", "1.5", "", "²"], "a whole number from 0"),
        (values.positive, ["0", "-1", "nan", "inf", "10s"], "a number above 0"),
        (values.switch, ["maybe", "2", ""], "one of on, yes, true, 1, off"),
        (values.not_empty, ["", " \n"], "a text that is not empty"),
        (values.pair, ["novalue", "1a=b", "=b"], "KEY=VALUE"),
        (values.one_of("a", "b"), ["c", "A", ""], "one of a, b"),
    ],
)
def test_what_is_not_accepted_is_told_what_is(parse, texts: list[str], accepted: str) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=f"^{accepted}"):
            parse(text)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (".cpus = 2", ".cpus = 2"),
        (" .cpus=2 ", ".cpus=2"),
        ("vmType=qemu", '.vmType = "qemu"'),
        ("memory = 4GiB", '.memory = "4GiB"'),
        ("cpus=2", ".cpus = 2"),
        ("plain=false", ".plain = false"),
        ("ssh.localPort=60022", ".ssh.localPort = 60022"),
        ("mounts[0].writable=true", ".mounts[0].writable = true"),
        ('env.A="x y"', '.env.A = "x y"'),
        ("env.A='x y'", '.env.A = "x y"'),
        ("env.A=a=b", '.env.A = "a=b"'),
        ('env.A=a"b', '.env.A = "a\\"b"'),
        ('dns=["1.1.1.1"]', '.dns = ["1.1.1.1"]'),
        ("del(.cpus)", "del(.cpus)"),
        ("cpus==2", "cpus==2"),
        ("cpus+=2", "cpus+=2"),
        ('select(.a = "b")', 'select(.a = "b")'),
        ("cpus", "cpus"),
        ("cpus=", "cpus="),
    ],
)
def test_an_expression_may_be_key_and_value(text: str, expression: str) -> None:
    assert values.expression(text) == expression


def test_an_empty_expression() -> None:
    with pytest.raises(ValueError, match="not empty"):
        values.expression("  ")
