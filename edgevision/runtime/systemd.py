"""What we tell systemd, in its own words and in pure Python: one datagram to NOTIFY_SOCKET (sd_notify(3)).

A unit of `Type=notify` is only up when it says so, and is replaced when it stops saying that it is well. Outside systemd
there is no socket, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass, field

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.environment import notify_socket, watchdog_interval_ns

_log = logging.getLogger(__name__)

STOP_MARGIN_S = 15.0
"""Beyond its limit an end may take this: closing at the very end has times of its own, and so has telling what hangs."""


@dataclass(slots=True, kw_only=True)
class Notifier:
    """The line to systemd; every method is safe to call where there is none."""

    address: str | None = None
    """A socket's path; `@name` is an abstract one. None: nobody listens."""
    watchdog_ns: int | None = None
    """The watchdog's interval, nanoseconds; None: there is no watchdog."""
    clock: Clock = SYSTEM_CLOCK
    _status: str = field(default="", init=False)
    _told_trouble: bool = field(default=False, init=False)

    @classmethod
    def from_environment(cls) -> Notifier:
        """As systemd has set it up for this process."""
        return cls(address=notify_socket(), watchdog_ns=watchdog_interval_ns(os.getpid()))

    def ready(self) -> None:
        """Start-up, or a reload, is finished."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. The time is what `Type=notify-reload` (systemd 253) tells reloads apart by."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={self.clock.monotonic_ns() // 1000}")

    def stopping(self, within_s: float) -> None:
        """The end begins, and may take so long; where the unit's TimeoutStopSec= is longer, that stands (sd_notify(3))."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((within_s + STOP_MARGIN_S) * 1e6)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        if self.watchdog_ns is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Our state in words, for `systemctl status`; sent when it changes."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def _send(self, state: str) -> None:
        if self.address is None:
            return
        where = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(1.0)
                line.connect(where)
                line.sendall(state.encode())
        except OSError as failure:
            # systemd then hears nothing and acts by its own time-outs; a daemon that works must not end for it.
            if not self._told_trouble:
                self._told_trouble = True
                fields = {"socket": self.address, "reason": failure.strerror or str(failure)}
                _log.warning("systemd cannot be told", extra={"fields": fields})
