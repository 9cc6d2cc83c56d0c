"""Names of our instances and the paths that have to stay short.

Lima puts ``ssh.sock.<16 digits>`` into ``$LIMA_HOME/<instance>`` and refuses names for which
that path reaches UNIX_PATH_MAX (Lima: pkg/instance/create.go). So our LIMA_HOME and our
names are short.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import sys
import threading
from pathlib import Path

from pytest_lima import realfiles
from pytest_lima.errors import HostError, TemplateError

UNIX_PATH_MAX = 108 if sys.platform == "linux" else 104
PREFIX = "pl-"
SNAPSHOTS = "_snapshots"  # in LIMA_HOME, a folder for each instance; Lima leaves _ alone

_LONGEST_SOCKET = "ssh.sock.1234567890123456"
_ROLE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?")


def instance_name(role: str | None = None) -> str:
    """A new name, such as ``pl-3f9c2a71`` or ``pl-3f9c2a71-registry``.

    The random part keeps parallel runs of one user apart; pids and worker ids don't.

    Raises:
        TemplateError: ``role`` isn't usable as a part of a host name.
    """
    token = PREFIX + secrets.token_hex(4)
    if role is None:
        return token
    if not _ROLE.fullmatch(role):
        raise TemplateError(
            f"the name {role!r} can't be used",
            remedy="give 1 to 24 of a-z, 0-9 and -, with no - at either end",
        )
    return f"{token}-{role}"


def lima_home(configured: str | None) -> Path:
    """The LIMA_HOME of our instances, private to the user; made if it is missing.

    Never the user's own ``~/.lima``: its ``_config`` files would be merged into our
    instances at every load, and limactl's commands look at all instances of a LIMA_HOME.

    Raises:
        HostError: The path is too long for Lima's sockets, or can't be made or used.
    """
    # Lima resolves symlinks before it measures (pkg/limatype/dirnames), so we do too.
    try:
        home = Path(configured or "~/.pytest-lima").expanduser().resolve()
    except (RuntimeError, OSError) as error:  # no home directory; or the current one is gone
        raise HostError(
            f"LIMA_HOME {configured or '~/.pytest-lima'} can't be used",
            seen=str(error),
            remedy="give an absolute path with --lima-home",
        ) from None
    _check_length(home)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
    except OSError as error:
        problem = str(error)
    else:
        return home
    raise HostError(
        f"LIMA_HOME {home} can't be used",
        seen=problem,
        remedy="give a directory of your own with --lima-home",
    )


def _check_length(home: Path) -> None:
    longest = len(str(home / instance_name() / _LONGEST_SOCKET).encode())
    if longest >= UNIX_PATH_MAX:
        raise HostError(
            f"LIMA_HOME {home} is too long by {longest - UNIX_PATH_MAX + 1} bytes",
            seen=f"Lima's socket paths in it take {longest} bytes, "
            f"the system allows {UNIX_PATH_MAX - 1}",
            remedy="give a shorter directory with --lima-home (a symlink doesn't help)",
        )


def our_folder(instance_dir: Path) -> Path:
    """Where our own files about an instance lie: 0700, and gone with the instance."""
    folder = instance_dir / "pl"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def evidence_folder(home: Path) -> Path:
    """Where logs of failed instances are kept; those older than the newest fifty go.

    On a full disk it may not be there: who writes into it is told so.
    """
    folder = home / "_failures"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        files = sorted(folder.iterdir(), key=_modified, reverse=True)
        for file in files[50:]:
            file.unlink(missing_ok=True)
    return folder


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # a parallel run has just removed it


def template_file(home: Path, name: str) -> Path:
    """Where the filled template lies until limactl has taken it over."""
    return home / f"_{name}.yaml"


def write_whole(path: Path, text: str) -> None:
    """Write a file that others may be reading: whole or not at all, even if we are killed."""
    half = path.with_name(f"{path.name}.{realfiles.pid()}-{threading.get_ident()}.tmp")
    try:
        half.write_text(text)
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
