from __future__ import annotations

from typing import Any

import pytest
import yaml

from pytest_lima.errors import TemplateError
from pytest_lima.lima.lima_yaml import Plain, read
from pytest_lima.lima.yaml_text import write


def read_anew(text: str) -> Any:
    return read("t", write("t", {"a": read("t", text)}))["a"]


NUMBERS = (
    "0o17", "0755", "08", "1_000", "1e3", "1.10", ".5", "5.", "0x1F", "0b11", ".inf", "-.inf",
    ".nan", "-0", "+5", "99999999999999999999", "1.0e+5",
)  # fmt: skip
TEXTS = (
    "on", "off", "yes", "No", "y", "12:30:45", "22:22", "2001-01-01", "2026-13-45", "=", "+.inf",
    "2001-01-01T00:00:00Z", "4GiB", "1.2.3", "_1", "http://x/", "-a", "inf", "a b", "0o8", "1e",
)  # fmt: skip


@pytest.mark.parametrize("plain", NUMBERS)
def test_what_may_be_a_number_is_written_as_it_was_read(plain: str) -> None:
    """It is for Lima to say what it is, which depends on the field too."""
    result = read("t", f"env:\n  A: {plain}\n  B:\n  - {plain}\n")
    assert result["env"]["A"] == plain
    assert f"  A: {plain}\n" in write("t", result)
    keyed = read("t", f"env:\n  {plain}: x\n")
    assert keyed == {"env": {plain: "x"}}
    assert f'  {plain}: "x"\n' in write("t", keyed)


@pytest.mark.parametrize("plain", TEXTS)
def test_what_is_a_text_for_lima_is_one_for_every_reader_afterwards(plain: str) -> None:
    result = read("t", f"env:\n  A: {plain}\n  {plain}: x\n  B:\n  - {plain}\n")
    assert result == {"env": {"A": plain, plain: "x", "B": [plain]}}
    assert yaml.safe_load(write("t", result)) == result


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None), ("~", None), ("", None), ("Null", None), ("true", True), ("True", True),
        ("FALSE", False), ("0", 0), ("17", 17), ("-5", -5), ("a b", "a b"), ("'a'", "a"),
        ("a\n  b\n\n  c", "a b\nc"), ("'it''s'", "it's"), ('"a\\tb\\u2028"', "a\tb\u2028"),
        ("|\n  a  \n\n  b\n", "a  \n\nb\n"), ("|+\n  a\n\n", "a\n\n\n"), ("|-\n  a\n\n", "a"),
        (">\n  a\n  b\n\n  c\n", "a b\nc\n"), ("|2\n    a\n  b\n", "  a\nb\n"), ("\tx", "x"),
        ("!!str 5", 5), ("!!str 0755", "0755"), ("! 0755", "0755"), ("! 5", "5"),
        ("!!str '5'", "5"), ("!!binary aGkNCg==", "hi\r\n"),
        ("!!binary /w==", b"\xff"), ("!!null x", None), ("!!bool \"true\"", True), ("!!int 5", 5),
        ('"a\x85b"', "a\x85b"), ('"a\u2028  b"', "a\u2028  b"),
        ("|\n  a\u2029  b\n", "a\u2029  b\n"),
        ("# c\n  x # d", "x"), ("[]", []), ("{}", {}), ("{a, b: }", {"a": None, "b": None}),
    ],
)  # fmt: skip
def test_values(text: str, value: object) -> None:
    result = read("t", f"a: {text}\n")["a"]
    assert result == value
    assert type(result) in (type(value), Plain)
    assert read_anew(f"a: {text}\n")["a"] == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\n---\na: 2\n", {"a": 1}),
        ("---\na: 1\n...\n", {"a": 1}),
        ("%YAML 1.1\n---\na: on\n", {"a": "on"}),
        ("# only\n", None),
        ("- a\n", ["a"]),
        ('{"a": 1, "b": {"c": "on"}}', {"a": 1, "b": {"c": "on"}}),
        ("a: 2\r\nb: |\r\n  x\r\n  y\r\n", {"a": 2, "b": "x\ny\n"}),
        ("a: x\r\n  y\r\n", {"a": "x y"}),
        ("? a\n: b\n", {"a": "b"}),
        ("a: {1: x, on: y, ~: z, 0755: o}\n", {"a": {"1": "x", "on": "y", "": "z", "0755": "o"}}),
        ("a: &x {b: on}\nc: *x\n", {"a": {"b": "on"}, "c": {"b": "on"}}),
        ("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n",
         {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        # Lima's way, not YAML's: the last one holds.
        ("a: &x {b: 1}\nd:\n  b: 3\n  <<: *x\n", {"a": {"b": 1}, "d": {"b": 1}}),
        ("a: &x {b: 1}\nc: &y {d: 2}\ne:\n  <<: [*x, *y]\n",
         {"a": {"b": 1}, "c": {"d": 2}, "e": {"b": 1, "d": 2}}),
        ('a: {"<<": x}\n', {"a": {"<<": "x"}}),
    ],
)  # fmt: skip
def test_documents(text: str, value: object) -> None:
    assert read("t", text) == value
    assert value is None or read_anew(text) == value


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a: [", "line 1, column"),
        ("a: 1\na: 2", "the key 'a' is there twice (line 2)"),
        ("a: {b: 1, b: 2}", "the key 'b' is there twice (line 1)"),
        ("? [a]\n: b", "a key is no text (line 1)"),
        ("a:\n  <<: x\n", "what << merges is no mapping (line 2)"),
        ("a: &x [*x]\n", "the limit of recursion was reached"),
        ("a: " + "[" * 3_000, "the limit of recursion was reached"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !!timestamp 2001-01-01", "could not determine a constructor"),
        ("a: !!set {b}", "could not determine a constructor"),
        ("a: !!binary '*'", "base64"),
        ("a: \x00", "special characters are not allowed"),
        ("\ufeffa: 1", "it begins with a byte order mark"),
        ('a: 1\r\nb: "x\r\n  y"\r\n', "Windows line ends"),
        ("a: {12:30: x}", "the key '12:30' in braces, which Lima splits (line 1)"),
    ],
)
def test_what_lima_would_read_otherwise_is_refused(text: str, seen: str) -> None:
    with pytest.raises(TemplateError) as caught:
        read("my.yaml", text)
    message = str(caught.value)
    assert message.startswith("my.yaml is not a Lima template")
    assert seen in message


def test_aliases_that_stand_for_too_much() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    with pytest.raises(TemplateError, match="limit of recursion"):
        read("t", "a0: &a0 x\n" + levels)


def test_a_text_without_end_is_not_parsed() -> None:
    with pytest.raises(TemplateError, match="larger than 1 MiB"):
        read("t", "a: " + "x" * (1024 * 1024))


def test_tabs_without_libyaml_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read("t", "a:\tx") == {"a": "x"}
    monkeypatch.delattr(yaml, "CBaseLoader", raising=False)
    with pytest.raises(TemplateError, match="cannot start any token"):
        read("t", "a:\tx")
