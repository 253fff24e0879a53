"""What a sink says in the log: every trouble once in plain words, and then ever more rarely while it lasts.

A broker that is away for a weekend must neither fill the disk with lines nor be forgotten. Drops are counted by the
queue and told here, from the sink's own thread: the pipeline never waits for a log handler.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from edgevision.clock import Clock

_FIRST_INTERVAL_NS = 60 * 10**9
_LONGEST_INTERVAL_NS = 3600 * 10**9
_MAX_TROUBLES = 64
"""Kinds of trouble remembered; more at once are not real."""


class Dropping(Protocol):
    """What gives messages up and counts them."""

    @property
    def dropped(self) -> int:
        """Messages given up in all."""
        ...

    def take_drops(self) -> Counter[str]:
        """Messages given up since the last call, by reason in words."""
        ...


@dataclass(slots=True)
class _Trouble:
    count: int
    """Times since it was last told."""
    next_mono_ns: int
    interval_ns: int


class Report:
    """The log lines of one sink; used by one thread."""

    def __init__(self, *, log: logging.Logger, name: str, clock: Clock) -> None:
        """`name` begins every line and tells which sink it is."""
        self._log = log
        self._name = name
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}
        self._next_drops_mono_ns = 0

    def trouble(self, text: str) -> None:
        """Tell a trouble: the first time at once, then after 1, 2, 4 ... 60 minutes with how often it came."""
        self._tell(logging.WARNING, text)

    def note(self, text: str) -> None:
        """Tell something good, as rarely."""
        self._tell(logging.INFO, text)

    def _tell(self, level: int, text: str) -> None:
        now_ns = self._clock.monotonic_ns()
        known = self._troubles.get(text)
        if known is None:
            if len(self._troubles) >= _MAX_TROUBLES:
                self._troubles.clear()
            self._troubles[text] = _Trouble(0, now_ns + _FIRST_INTERVAL_NS, _FIRST_INTERVAL_NS)
            self._log.log(level, "%s: %s", self._name, text)
            return
        known.count += 1
        if now_ns >= known.next_mono_ns:
            self._log.log(level, "%s: %s (%d more times)", self._name, text, known.count)
            known.count = 0
            known.interval_ns = min(2 * known.interval_ns, _LONGEST_INTERVAL_NS)
            known.next_mono_ns = now_ns + known.interval_ns

    def recovered(self) -> None:
        """All is well again: the next trouble is news."""
        self._troubles.clear()

    def drops(self, queue: Dropping, *, at_once: bool = False) -> None:
        """Tell what the queue gave up since the last line, at most one line a minute."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_drops_mono_ns and not at_once:
            return
        drops = queue.take_drops()
        if drops:
            self._next_drops_mono_ns = now_ns + _FIRST_INTERVAL_NS
            reasons = ", ".join(f"{count} {reason}" for reason, count in drops.most_common())
            self._log.warning(
                "%s: %d messages dropped (%s), %d in all", self._name, drops.total(), reasons, queue.dropped
            )
