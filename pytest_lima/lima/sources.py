"""Where a template is from: files by any name, and what was meant where there is none."""

from __future__ import annotations

import contextlib
import difflib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# limactl makes an instance's name of a template's, and refuses what is no name
# (pkg/identifiers), also where the name isn't needed.
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
_NAME_LIMIT = 76
_IMAGE = re.compile(r"\.(img|qcow2|raw|iso|ipsw)(\.(gz|xz|bz2|zstd))?$")
_REMOTE = re.compile(r"(template|https?|github):")
_OURS = "pytest-lima-template.yaml"


@dataclass(frozen=True)
class Readable:
    """What to give ``limactl template copy`` for a template.

    Attributes:
        name: A path, a URL or a name that it reads.
        path: The file behind it, where that is another.
    """

    name: str
    path: Path | None = None

    def told(self, text: str) -> str:
        """What limactl says, with the template's own path for the one that it was given."""
        if self.path is None:
            return text
        links = str(Path(self.name).parent)
        return text.replace(self.name, str(self.path)).replace(links, str(self.path.parent))


@contextmanager
def readable(source: str) -> Iterator[Readable]:
    """What limactl reads for ``source``, while in the context.

    A file whose own name limactl refuses is found under another in a folder of links to its
    neighbours, as what it refers to is found from its folder.
    """
    path = _path(source)
    if path is None or _is_taken(path) or not path.is_file():
        yield Readable(source)
        return
    with tempfile.TemporaryDirectory(prefix="pytest-lima-") as folder:
        links = Path(folder).resolve()
        (links / _OURS).symlink_to(path)
        with contextlib.suppress(PermissionError):  # a folder that can't be listed
            for neighbour in path.parent.iterdir():
                if neighbour.name != _OURS:
                    (links / neighbour.name).symlink_to(neighbour)
        yield Readable(str(links / _OURS), path)


def remedy(source: str, templates: Sequence[str]) -> str:
    """What to do about a template that limactl can't read.

    Args:
        source: What was given.
        templates: The names of those that Lima has.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "template":
        name = rest.removeprefix("//").removesuffix(".yaml")
        if name not in templates:
            return _named(name, templates) or "see `limactl create --list-templates`"
    path = _path(source)
    if path is not None and not path.exists():
        return "; ".join(filter(None, _elsewhere(path, templates)))
    return "see `limactl create --list-templates`, or check the file"


def _elsewhere(path: Path, templates: Sequence[str]) -> Iterator[str]:
    yield f"there is no file {path.name} in {path.parent}"
    with contextlib.suppress(OSError):
        files = {file.name.lower(): file.name for file in path.parent.iterdir() if file.is_file()}
        near = difflib.get_close_matches(path.name.lower(), files, n=1, cutoff=0.7)
        if near:
            yield f"did you mean {path.with_name(files[near[0]])}?"
    yield _named(path.name.removesuffix(".yaml"), templates)


def _named(name: str, templates: Sequence[str]) -> str:
    near = [name] if name in templates else difflib.get_close_matches(name, templates, n=3)
    return f"did you mean {' or '.join(f'template:{one}' for one in near)}?" if near else ""


def _path(source: str) -> Path | None:
    """The file that it names, if it does."""
    if source.startswith("file://"):
        return Path(source.removeprefix("file://"))
    return None if not source or source == "-" or _REMOTE.match(source) else Path(source).absolute()


def _is_taken(path: Path) -> bool:
    """Whether limactl takes its name, be it for an image's."""
    stem = path.name.lower().removesuffix(".yml").removesuffix(".yaml")
    fits = len(stem) <= _NAME_LIMIT and _NAME.fullmatch(stem) is not None
    return fits or _IMAGE.search(path.name) is not None
