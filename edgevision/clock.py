"""The one clock: everything that asks for the time or waits takes it from here, so that a test can own the time.

Durations come from the monotonic clock, because the wall clock of an edge box jumps when NTP first reaches it.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Time and waiting."""

    def time_ns(self) -> int:
        """Unix time in nanoseconds; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; True if it is set."""
        ...


class SystemClock:
    """The machine's own clock."""

    def time_ns(self) -> int:
        """Unix time in nanoseconds."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back."""
        return time.monotonic_ns()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; True if it is set."""
        return event.wait(max(0.0, seconds))


SYSTEM_CLOCK = SystemClock()
