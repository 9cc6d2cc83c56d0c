"""A connection that a forked child has from its parent, and may not use.

Both have the same socket, and each packet is numbered: one from the child would end the parent's
connection. paramiko sends some without being asked, when a channel is collected as garbage.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko


def let_go(transport: paramiko.Transport, channels: Collection[paramiko.Channel]) -> None:
    """In the child: close its copy of the socket, without a word to the other end.

    Whoever still uses a channel finds the connection lost, and waits for none of the locks that a
    thread of the parent's may have held.
    """
    transport.active = False  # type: ignore[attr-defined]
    transport.sock.close()
    for channel in list(channels):
        channel.lock = threading.Lock()
        for name in ("in_buffer", "in_stderr_buffer"):
            pipe = type(channel.in_buffer)()
            pipe.close()
            setattr(channel, name, pipe)
        channel.status_event = threading.Event()
        channel.status_event.set()
        channel.closed = True
