"""A token bucket: so many a second, whatever the wall clock does."""

from __future__ import annotations

from edgevision.clock import Clock

_BURST_S = 0.01
"""Of a stream that may flow at once after a pause."""


class Pace:
    """Lets so many pass a second."""

    def __init__(self, per_s: float, *, clock: Clock) -> None:
        """Begin with a full bucket."""
        self._per_s = per_s
        self._clock = clock
        self._most = max(1.0, per_s * _BURST_S)
        self._tokens = self._most
        self._at_ns = clock.monotonic_ns()

    def wait_s(self) -> float:
        """Seconds until the next may pass; 0 when it may now."""
        now_ns = self._clock.monotonic_ns()
        self._tokens = min(self._most, self._tokens + (now_ns - self._at_ns) / 1e9 * self._per_s)
        self._at_ns = now_ns
        return max(0.0, (1.0 - self._tokens) / self._per_s)

    def spend(self) -> None:
        """One has passed."""
        self._tokens -= 1.0
