"""Directories of this host in the guest: how a user asks for them, and what a template wants."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_lima.errors import TemplateError

SYNTAX = "PATH[:MOUNTPOINT][:w]"

# Where Lima mounts nothing (Lima: pkg/limayaml/validate.go).
_SYSTEM = ("/", "/bin", "/dev", "/etc", "/home", "/opt", "/sbin", "/tmp", "/usr", "/var")  # noqa: S108


def parse(text: str) -> dict[str, Any]:
    """A lima.yaml's ``mounts`` entry from ``PATH[:MOUNTPOINT][:w]``.

    Both paths may hold colons: what is a directory of this host is one, else what stands before
    the last colon that makes it one.

    Raises:
        TemplateError: No directory of this host, or no place for it in the guest.
    """
    named = text.removesuffix(":w").strip()
    for location, point in _splits(named):
        path = _directory(location)
        if path is not None:
            entry: dict[str, Any] = {"location": str(path)}
            if point is not None:
                entry["mountPoint"] = _checked(text, point)
            return {**entry, "writable": text.endswith(":w")}
    raise TemplateError(
        f"the mount {text!r} is not a directory on this host",
        remedy=f"give an existing directory, as {SYNTAX}: with :w at the end to make it writable",
    )


def spell(entry: object) -> str:
    """A ``mounts`` entry as a user would ask for it."""
    if not isinstance(entry, Mapping):
        return str(entry)
    point = entry.get("mountPoint") or ""
    writable = ":w" if entry.get("writable") else ""
    return f"{entry.get('location')}{':' if point else ''}{point}{writable}"


def _splits(named: str) -> Iterator[tuple[str, str | None]]:
    """Ways to read it as directory and mount point, the likelier first."""
    yield named, None
    end = named.rfind(":")
    while end != -1:
        yield named[:end].strip(), named[end + 1 :].strip()
        end = named.rfind(":", 0, end)


def _directory(location: str) -> Path | None:
    try:
        path = Path(location).expanduser()
    except RuntimeError:
        return None  # the home of a user that doesn't exist
    # An empty one would be the current directory.
    return path.resolve() if location and path.is_dir() else None


def _checked(text: str, point: str) -> str:
    tidy = posixpath.normpath(point)
    if ":" in point or not point.startswith(("/", "{{")):  # such as {{.Home}}/src
        problem = f"{point!r} is no absolute path without colons"
    elif tidy in _SYSTEM:
        problem = f"Lima mounts nothing at {tidy}"
    else:
        return tidy
    raise TemplateError(
        f"the mount {text!r} has no place in the guest",
        seen=problem,
        remedy=f"give {SYNTAX}, with an absolute path in the guest, such as /mnt/src, or "
        "{{.Home}}/src for one in the login user's home",
    )
