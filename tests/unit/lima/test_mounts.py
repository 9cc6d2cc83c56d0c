from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lima.errors import TemplateError
from pytest_lima.lima import mounts


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("src", "a:b", "a:", "x:w"):
        (tmp_path / name).mkdir()
    return tmp_path.resolve()


@pytest.mark.parametrize(
    ("text", "folder", "point", "writable"),
    [
        ("~/src", "src", None, False),
        ("~/src:w", "src", None, True),
        ("~/src:/mnt/src", "src", "/mnt/src", False),
        ("~/src:/mnt/src:w", "src", "/mnt/src", True),
        ("~/src : /mnt/src", "src", "/mnt/src", False),
        ("~/src:/mnt//x/../src/", "src", "/mnt/src", False),
        ("~/src:{{.Home}}/src", "src", "{{.Home}}/src", False),
        ("~/a:b", "a:b", None, False),
        ("~/a:b:w", "a:b", None, True),
        ("~/a:b:/mnt/x", "a:b", "/mnt/x", False),
        ("~/a::/mnt/x:w", "a:", "/mnt/x", True),
        ("~/x:w:w", "x:w", None, True),
    ],
)
def test_a_directory_its_place_in_the_guest_and_whether_it_is_writable(
    home: Path, text, folder, point, writable
) -> None:
    place = {} if point is None else {"mountPoint": point}
    expected = {"location": str(home / folder), **place, "writable": writable}
    assert mounts.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["/no/such", "/no/such:/mnt/x", "/etc/passwd", "", ":w", "  ", ":/mnt/x", "~nosuch/x"]
)
def test_what_is_no_directory(home: Path, text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        mounts.parse(text)
    assert str(caught.value).startswith(f"the mount {text!r} is not a directory on this host")
    assert "PATH[:MOUNTPOINT][:w]" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("~/src:mnt", "'mnt' is no absolute path"),
        ("~/src:~/src", "'~/src' is no absolute path"),
        ("~/src:", "'' is no absolute path"),
        ("~/src:ro", "'ro' is no absolute path"),
        ("~/src:/mnt/src:ro", "'/mnt/src:ro' is no absolute path without colons"),
        ("~/src:/mnt/src:rw", "'/mnt/src:rw' is no absolute path without colons"),
        ("~/src:/etc", "Lima mounts nothing at /etc"),
        ("~/src:/etc/", "Lima mounts nothing at /etc"),
        ("~/src:/mnt/..", "Lima mounts nothing at /"),
    ],
)
def test_what_is_no_place_in_the_guest(home: Path, text: str, seen: str) -> None:
    with pytest.raises(TemplateError) as caught:
        mounts.parse(text)
    message = str(caught.value)
    assert message.startswith(f"the mount {text!r} has no place in the guest")
    assert seen in message
    assert "give PATH[:MOUNTPOINT][:w]" in message


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"location": "~"}, "~"),
        ({"location": "~", "writable": True}, "~:w"),
        ({"location": "/a", "mountPoint": "/b", "writable": False}, "/a:/b"),
        ({"location": "/a", "mountPoint": "/b", "writable": True}, "/a:/b:w"),
        ("text", "text"),
    ],
)
def test_an_entry_as_a_user_would_ask_for_it(entry: object, text: str) -> None:
    assert mounts.spell(entry) == text
