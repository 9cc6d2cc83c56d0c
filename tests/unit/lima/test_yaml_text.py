from __future__ import annotations

import pytest
import yaml

from pytest_lima.errors import TemplateError
from pytest_lima.lima.lima_yaml import Plain, read
from pytest_lima.lima.yaml_text import write

# Seen as something else than a text by some reader: YAML 1.1's, 1.2's, or Lima's.
AMBIGUOUS = (
    "on", "off", "yes", "no", "y", "n", "Yes", "ON", "true", "True", "FALSE", "null", "Null", "~",
    "", "0o17", "017", "0755", "08", "1_000", "12:30:45", "22:22", "1e3", "1.0", "1.10", ".5",
    "0x1F", "0b11", "2001-01-01", "2026-13-45", "=", "<<", ".inf", ".nan", "-0", "+5", "-", "?",
    "@x", "%x", "`x", "*x", "&x", "!x", "|", ">", "a: b", "a #b", "#a", " a", "a ", "[a", "{a}",
    ",", "'", '"', "99999999999999999999", "---", "...", "a:", "::1",
)  # fmt: skip


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_a_text_of_ours_is_a_text_for_every_reader(text: str) -> None:
    value = {"env": {text: text}, "list": [text, [text]], "block": f"a{text}\n{text}\n"}
    written = write("t", value)
    assert yaml.safe_load(written) == value
    assert read("t", written) == value


@pytest.mark.parametrize("text", [text for text in AMBIGUOUS if text not in ("", "~", "-", "?")])
def test_what_is_quoted_in_a_template_stays_a_text(text: str) -> None:
    quoted = yaml.safe_dump({"a": text}, default_style='"')
    result = read("t", quoted)
    assert result == {"a": text}
    assert not isinstance(result["a"], Plain)
    assert yaml.safe_load(write("t", result)) == {"a": text}


def test_a_script_is_written_as_a_block() -> None:
    script = "#!/bin/sh\nset -eu\n\nif true; then\n\techo 'ü: \"x\"' # y\n  echo z\nfi\n"
    written = write("t", {"provision": [{"mode": "system", "script": script}], "tail": script[:-1]})
    assert written.startswith(
        'provision:\n- mode: "system"\n  script: |\n    #!/bin/sh\n    set -eu\n\n'
    )
    assert "tail: |-\n" in written
    assert yaml.safe_load(written)["provision"][0]["script"] == script


@pytest.mark.parametrize(
    "text",
    [
        "a \nb\n", " a\nb\n", "\na\n", "a\n\n", "\n", "a\r\nb\r\n", "a\rb", "a\x01\nb\n", "a\x7f",
        "a\x85\nb", "a\u2028b\nc", "a\ufeffb", "\U0001f600", "a\n\U0001f600\n", "\xa0",
        "\tx\n\ty\n",
        "a\n  \nb\n",
        "x" * 70_000, "x\n" * 40_000, "\x01" * 70_000,
    ],
)  # fmt: skip
def test_texts_that_are_no_block(text: str) -> None:
    value = {"a": text, "b": [{"c": text}]}
    written = write("t", value)
    assert read("t", written) == value
    assert all(
        len(line) < 65_000 for line in written.splitlines()
    )  # limactl's formatter ends there
    assert all(char.isprintable() or char in "\n\t" for char in written)


def test_plain_data_of_python() -> None:
    value = {
        "a": None,
        "b": True,
        "c": 5,
        "d": 1.5,
        "e": [],
        "f": {},
        "g": [[1, [2]], {}],
        "h": ("x",),
    }
    written = write("t", value)
    assert yaml.safe_load(written) == {**value, "h": ["x"]}


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), "\ud800", object()])
def test_what_no_yaml_can_hold(value: object) -> None:
    with pytest.raises(TemplateError, match="my.yaml with its overrides can't be written as YAML"):
        write("my.yaml", {"a": [value]})
