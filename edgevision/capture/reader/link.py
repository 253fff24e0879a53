"""The few words that the daemon and a reader process exchange: JSON packets over a Unix socket that keeps their bounds.

From the daemon: the job (once), then `{"do": "open"}`, `{"do": "close"}`, `{"do": "release", "ring", "slot"}` and
`{"do": "done", "sequence", "fault"}`. From the reader: `{"is": "ring", ...}` with the memory's file descriptor,
`{"is": "frame", ...}`, `{"is": "idle", "fault"}`, `{"is": "ended"}` and `{"is": "failed", "why"}`, the last four with the
source's count as `unreadable`. The end of the line is a message too: each side learns of the other's death by it, however it
died.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

MAX_PACKET_BYTES = 64 << 10
"""Far more than any packet; a socket buffer takes several."""
MAX_TEXT = 4000
"""Characters of a reason or a log line that are passed on."""


class Link:
    """One end of the line."""

    def __init__(self, line: socket.socket) -> None:
        """`line` is one half of a pair of SOCK_SEQPACKET sockets."""
        self._line = line

    def fileno(self) -> int:
        """For poll."""
        return self._line.fileno()

    def send(self, packet: Mapping[str, Any], *, descriptors: Sequence[int] = ()) -> None:
        """Send one packet.

        Raises:
            OSError: the other side is gone, or the line is closed.
        """
        content = json.dumps(packet).encode()
        if descriptors:
            socket.send_fds(self._line, [content], list(descriptors))
        else:
            self._line.send(content)

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next packet, waiting for it, and the file descriptors in it, which the caller closes; None at the end."""
        try:
            content, descriptors, _, _ = socket.recv_fds(self._line, MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # the other side died with packets of ours unread
            return None
        if not content:
            return None
        try:
            packet = json.loads(content)
        except ValueError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return packet, descriptors

    def close(self) -> None:
        """Close this end."""
        self._line.close()


def pair() -> tuple[Link, socket.socket]:
    """A new line: our end, and the socket that the other side is given."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Link(ours), theirs
