"""What goes over one connection, and in which order: first how things stand, then live and late messages in turn."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgevision.broker.words import LinkError
from edgevision.clock import Clock
from edgevision.publish._mqtt_link import Link
from edgevision.publish._mqtt_waiting import Waiting
from edgevision.publish._queue import Entry
from edgevision.publish._report import Report
from edgevision.publish._spool_feed import STALE_NS, Outgoing, SpoolFeed
from edgevision.publish._spool_memory import STATES, Spooled
from edgevision.types import Message

_STATES_NS = 3 * 10**9
"""How long a new connection waits for states that are read from the disk before it goes on without them."""
_STEP_S = 10.0


class Sender:
    """One connection's, used by its thread; every method may raise `LinkError`."""

    def __init__(
        self,
        link: Link,
        waiting: Waiting,
        *,
        historical: Callable[[bytes], bytes],
        report: Report,
        clock: Clock,
        left_s: Callable[[], float],
    ) -> None:
        """Begin on a connection that is up.

        Args:
            link: the connection.
            waiting: what has to be sent.
            historical: marks a JSON payload as late; ValueError where it cannot.
            report: told of what cannot be marked.
            clock: the time.
            left_s: seconds until the sink gives up.
        """
        self.sending: Entry | Spooled | None = None
        """What is being handed over just now."""
        self._link = link
        self._waiting = waiting
        self._historical = historical
        self._report = report
        self._clock = clock
        self._left_s = left_s
        self._up_ns = clock.monotonic_ns()

    def some(self) -> bool:
        """One live message and one of the spool: neither can starve the other. False where there is none."""
        entry = self._waiting.queue.get()
        if entry is not None:
            self._send(entry)
        feed = self._waiting.feed
        outgoing = feed.next() if feed is not None and self._link.has_room else None
        if outgoing is not None:
            self._send_spooled(outgoing)
        return entry is not None or outgoing is not None

    def begin(self, birth: Message | None) -> None:
        """What each connection begins with: that we are there, and what the broker should have retained."""
        link, waiting = self._link, self._waiting
        first = [birth] if birth is not None else []
        told = {message.topic for message in first}
        for message in first:
            self._send_waiting(message.topic)
        if waiting.feed is not None:
            told |= self._send_states(waiting.feed, birth)
            first = [message for message in first if not message.durable]
        told |= waiting.queue.retained_topics()
        first += [message for message in waiting.retained.all() if message.topic not in told]
        for message in first:
            self._make_room()
            link.send(message, None, payload=message.payload, expires_s=None)
            link.flush()

    def _make_room(self) -> None:
        while not self._link.has_room:
            self._link.step(min(_STEP_S, self._left_s()))

    def _send_waiting(self, topic: str) -> None:
        """What waits on the birth's topic goes before it: a retained topic must end with the newest state."""
        while True:
            self._make_room()
            entry = self._waiting.queue.get_of(topic)
            if entry is None:
                return
            self._send(entry)
            self._link.flush()

    def _send_states(self, feed: SpoolFeed, birth: Message | None) -> set[str]:
        """States that are in the spool go first and in order, our birth the last of them; returns the topics told."""
        if birth is not None and birth.durable:
            self._waiting.retained.keep(birth)
            feed.spool.put(birth)
        told: set[str] = set()
        end_ns = self._clock.monotonic_ns() + _STATES_NS
        while feed.spool.has_states() and self._clock.monotonic_ns() < end_ns and self._left_s() > 0:
            outgoing = feed.next((STATES,)) if self._link.has_room else None
            if outgoing is None:
                self._link.step(0.01)
                continue
            self._send_spooled(outgoing)
            self._link.flush()
            if outgoing.message.retain:
                told.add(outgoing.message.topic)
        return told

    def _send_spooled(self, outgoing: Outgoing) -> None:
        item = self.sending = outgoing.item
        try:
            self._link.send(outgoing.message, item, payload=outgoing.payload, expires_s=outgoing.expires_s)
        except LinkError:
            self._waiting.put_back([item])
            raise
        self.sending = None

    def _send(self, entry: Entry) -> None:
        message = entry.message
        payload = message.payload
        if (
            self._up_ns - entry.queued_mono_ns > STALE_NS
            and not message.retain
            and message.content_type == "application/json"
        ):
            try:
                payload = self._historical(payload)
            except ValueError as error:
                self._report.trouble(f"a late message on {message.topic!r} cannot be marked as historical: {error}")
        expires_s = None
        if entry.expires_mono_ns is not None:
            # MQTT counts whole seconds; rounded up, because 0 would mean at once.
            expires_s = max(1, math.ceil((entry.expires_mono_ns - self._clock.monotonic_ns()) / 1e9))
        self.sending = entry
        try:
            self._link.send(message, entry, payload=payload, expires_s=expires_s)
        except LinkError:
            self._waiting.put_back([entry])
            raise
        self.sending = None
