"""What the MQTT sink asks of its spool: what to send next, how it is marked, and how fast.

Late messages are paced by a token bucket and hold at most half of the connection's window, so that live messages always find
room; fresh ones go as they come. Nothing overtakes what is older in its own lane: a live result that is durable waits for the
backlog of results, because order per camera is what durable means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edgevision.clock import Clock
from edgevision.publish._mqtt_retained import RetainedMemory
from edgevision.publish._pace import Pace
from edgevision.publish._report import Report
from edgevision.publish._spool import Spool
from edgevision.publish._spool_keeper import SpoolKeeper
from edgevision.publish._spool_memory import LANES, Spooled
from edgevision.publish.base import SpoolStats
from edgevision.publish.mqtt import Options
from edgevision.types import Message

JOURNAL = "spool.sqlite"
STALE_NS = 10**9
"""A message that waited longer than this is marked as historical."""
_NAP_S = 0.002
"""A paced stream is fed in little heaps, so that it costs few wake-ups; a live message waits behind one heap at most."""
_LOOK_S = 1.0
"""How often is looked whether the disk has stalled."""
_RELEASED_S = 0.02
"""And, while it has, for new messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A spooled message as it has to be sent."""

    item: Spooled
    message: Message
    payload: bytes
    expires_s: int | None


class SpoolFeed:
    """A spool, its keeper and its pace; `put` from any thread, all else from the sink's."""

    def __init__(
        self,
        state_dir: Path,
        *,
        options: Options,
        clock: Clock,
        retained: RetainedMemory,
        historical: Callable[[bytes], bytes],
        report: Report,
        on_ready: Callable[[], None],
    ) -> None:
        """Open the journal in `state_dir`, in the keeper's thread.

        Raises:
            StateError: another daemon owns the journal.
        """
        self.spool = Spool(
            max_messages=options.queue_size, max_bytes=options.queue_bytes, clock=clock, on_ready=on_ready
        )
        self._keeper = SpoolKeeper(self.spool, path=state_dir / JOURNAL, options=options.spool, clock=clock)
        self._clock = clock
        self._retained = retained
        self._historical = historical
        self._report = report
        self._pace = Pace(options.spool.replay_per_s, clock=clock)
        self._most_late = max(1, options.max_inflight // 2)
        self._late: set[int] = set()
        """Numbers of late messages on their way."""
        self._keeper.start()

    @property
    def stats(self) -> SpoolStats:
        """The counts now."""
        return self.spool.stats

    def due_s(self) -> float:
        """Seconds until `next` may give something, or until it has to be asked again; what comes earlier wakes the sink."""
        heads = [item for item in map(self.spool.peek, LANES) if item is not None]
        if not all(map(self._is_late, heads)):
            return 0.0
        if heads and len(self._late) < self._most_late:
            wait_s = self._pace.wait_s()
            return max(wait_s, _NAP_S) if wait_s > 0 else 0.0
        return _RELEASED_S if self.spool.is_released() else _LOOK_S

    def next(self, lanes: Iterable[int] = LANES) -> Outgoing | None:
        """What to send now: settle it, or put it back."""
        for lane in lanes:
            head = self.spool.peek(lane)
            if head is None:
                continue
            if self._is_late(head) and (len(self._late) >= self._most_late or self._pace.wait_s() > 0):
                continue
            item = self.spool.take(lane)
            if item is not None:
                return self._outgoing(item)
        return None

    def _is_late(self, item: Spooled) -> bool:
        return item.recovered or self._clock.monotonic_ns() - item.made_mono_ns > STALE_NS

    def _outgoing(self, item: Spooled) -> Outgoing:
        message, payload = item.message, item.message.payload
        late = self._is_late(item)
        if message.retain:
            # What a topic retains must stay its newest state, however late an older one is sent.
            newest = self._retained.newest(message.topic)
            if newest is not None and newest.payload != payload:
                message = replace(message, retain=False)
        if late:
            self._late.add(item.number)
            self._pace.spend()
            current = message.retain and not item.recovered
            if not current and message.content_type == "application/json":
                try:
                    payload = self._historical(payload)
                except ValueError as error:
                    topic = message.topic[:200]
                    self._report.trouble(f"a late message on {topic!r} cannot be marked as historical: {error}")
        expires_s = None
        if item.expires_mono_ns is not None:
            # MQTT counts whole seconds; rounded up, because 0 would mean at once.
            expires_s = max(1, math.ceil((item.expires_mono_ns - self._clock.monotonic_ns()) / 1e9))
        return Outgoing(item=item, message=message, payload=payload, expires_s=expires_s)

    def settle(self, item: Spooled, refusal: str | None) -> None:
        """The broker has acknowledged it, or it is given up, counted under the word `refusal`."""
        late = item.number in self._late
        self._late.discard(item.number)
        self.spool.settle(item, refusal, late=late)

    def put_back(self, items: list[Spooled]) -> None:
        """The connection was lost before these were acknowledged."""
        self._late.difference_update(item.number for item in items)
        self.spool.put_back(items)

    def close(self, deadline_s: float) -> None:
        """Write all that was handed over to the disk, and close the journal."""
        self._keeper.close(deadline_s)
