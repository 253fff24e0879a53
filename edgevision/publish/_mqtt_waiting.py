"""What waits for the connection: the queue in memory, and for durable messages the spool. One count over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgevision.publish._mqtt_retained import RetainedMemory
from edgevision.publish._mqtt_window import Ticket
from edgevision.publish._queue import BoundedQueue, Entry
from edgevision.publish._report import Report
from edgevision.publish._spool_feed import SpoolFeed
from edgevision.publish._spool_memory import Spooled
from edgevision.publish.base import SinkContext, SinkStats
from edgevision.publish.mqtt import Options
from edgevision.types import Message


class Waiting:
    """Messages that have still to be delivered; `put`, `stats` and `flush` from any thread."""

    def __init__(
        self,
        *,
        options: Options,
        context: SinkContext,
        historical: Callable[[bytes], bytes],
        report: Report,
        on_ready: Callable[[], None],
    ) -> None:
        """Begin empty, or with what the journal in `context.state_dir` holds.

        Raises:
            StateError: another daemon keeps its durable messages in the same folder.
        """
        self.queue = BoundedQueue(max_messages=options.queue_size, max_bytes=options.queue_bytes, clock=context.clock)
        self.retained = RetainedMemory()
        self.feed: SpoolFeed | None = None
        self._report = report
        self._on_ready = on_ready
        self._sent = 0
        if context.state_dir is not None:
            self.feed = SpoolFeed(
                context.state_dir,
                options=options,
                clock=context.clock,
                retained=self.retained,
                historical=historical,
                report=report,
                on_ready=on_ready,
            )

    def put(self, message: Message) -> None:
        """Take a message; without an acknowledgement (QoS 0) none can be durable."""
        if message.retain:
            self.retained.keep(message)
        if self.feed is not None and message.durable and message.qos:
            self.feed.spool.put(message)
            return
        self.queue.put(message)
        self._on_ready()

    def stats(self, *, connected: bool, state: str) -> SinkStats:
        """The counts now."""
        # Read in this order, what is settled in between is counted as waiting and never as lost.
        sent, dropped = self._sent, self.queue.dropped
        queued = self.queue.offered - sent - dropped
        spool = self.feed.stats if self.feed is not None else None
        if spool is not None:
            sent, queued, dropped = sent + spool.sent, queued + spool.waiting, dropped + sum(spool.drops.values())
        return SinkStats(sent=sent, dropped=dropped, queued=queued, connected=connected, state=state, spool=spool)

    def __bool__(self) -> bool:
        """Whether anything has still to be delivered."""
        return len(self.queue) > 0 or (self.feed is not None and self.feed.spool.waits())

    def due_s(self) -> float | None:
        """Seconds until something may be sent, or has to be asked for again; None where whatever comes tells of itself."""
        if len(self.queue):
            return 0.0
        return self.feed.due_s() if self.feed is not None else None

    def put_back(self, entries: Iterable[Ticket]) -> None:
        """Return what was taken and not delivered; it stands where it stood before."""
        given = list(entries)
        self.queue.put_back([entry for entry in given if isinstance(entry, Entry)])
        if self.feed is not None:
            self.feed.put_back([entry for entry in given if isinstance(entry, Spooled)])

    def settle(self, entry: Ticket, reason: str | None) -> None:
        """Count a message as delivered, or as dropped for `reason`."""
        if isinstance(entry, Spooled):
            if self.feed is not None:
                self.feed.settle(entry, reason)
        elif entry is not None and reason is not None:
            self.queue.drop(reason)
        elif entry is not None:
            self._sent += 1

    def flush(self, deadline_s: float) -> bool:
        """Wait until every durable message so far is safe on the disk or delivered; False when that took longer."""
        return self.feed is None or self.feed.spool.flush(deadline_s)

    def close(self, deadline_s: float) -> None:
        """Count what is only in memory as dropped, and keep the rest on the disk."""
        self.queue.close()
        self._report.drops(self.queue, at_once=True)
        if self.feed is not None:
            self.feed.close(deadline_s)
