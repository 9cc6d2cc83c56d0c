"""Where a guest answers SSH."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Address:
    """Where and as whom to log in.

    Attributes:
        port: On 127.0.0.1.
        user: In the guest.
        key: File of the private key, Lima's ``$LIMA_HOME/_config/user``.
    """

    port: int
    user: str
    key: Path
