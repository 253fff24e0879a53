"""The bounded queue between the pipeline and what carries messages out: the one place where a message may be given up.

On a line that runs for years the other side is away now and then, and a queue without a bound ends in a full memory. So
both its length and its bytes are bounded, and what goes first when it is full is decided here: the oldest of the least
precious. It never waits, it may be used from any thread, and every message it gives up is counted.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from edgevision.clock import Clock
from edgevision.types import Message

_RANKS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A message in the queue or on its way."""

    sequence: int
    """Place in the order of arrival; kept when the entry comes back after a lost connection."""
    message: Message
    queued_mono_ns: int
    expires_mono_ns: int | None
    size_bytes: int
    rank: int
    """0 may go first: QoS 0. 1: acknowledged or retained. 2 goes last: durable."""


def _rank(message: Message) -> int:
    if message.durable:
        return 2
    return 1 if message.qos or message.retain else 0


class BoundedQueue:
    """First in, first out, bounded in messages and bytes; full, it gives up the oldest of the lowest rank."""

    def __init__(self, *, max_messages: int, max_bytes: int, clock: Clock) -> None:
        """Make an empty queue."""
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        # One lane a rank, each in order of arrival: the head of the queue is the smallest sequence of three heads, and
        # giving up the oldest of a rank is a popleft.
        self._lanes: tuple[deque[Entry], ...] = tuple(deque() for _ in range(_RANKS))
        self._length = 0
        self._bytes = 0
        self._next_sequence = 0
        self._closed = False
        self._drops: Counter[str] = Counter()
        self._dropped = 0
        self._offered = 0

    def __len__(self) -> int:
        return self._length

    @property
    def size_bytes(self) -> int:
        """Bytes of all topics and payloads that wait."""
        return self._bytes

    @property
    def offered(self) -> int:
        """Messages put since the queue was made; what is neither delivered nor dropped of them is on its way."""
        return self._offered

    @property
    def dropped(self) -> int:
        """Messages given up since the queue was made."""
        return self._dropped

    def take_drops(self) -> Counter[str]:
        """The messages given up since the last call, by reason in words; for a log line."""
        with self._lock:
            drops, self._drops = self._drops, Counter()
        return drops

    def drop(self, reason: str, count: int = 1) -> None:
        """Count messages that were given up outside the queue, so that there is one count."""
        with self._lock:
            self._count_drop(reason, count)

    def put(self, message: Message) -> None:
        """Take a message, or count it as dropped."""
        now_ns = self._clock.monotonic_ns()
        size_bytes = len(message.payload) + len(message.topic)
        expires_ns = None if message.expires_s is None else now_ns + int(message.expires_s * 1e9)
        with self._lock:
            self._offered += 1
            if self._closed:
                self._count_drop("after the end")
                return
            if size_bytes > self._max_bytes:
                self._count_drop("larger than the whole queue")
                return
            entry = Entry(self._next_sequence, message, now_ns, expires_ns, size_bytes, _rank(message))
            self._next_sequence += 1
            self._lanes[entry.rank].append(entry)
            self._length += 1
            self._bytes += size_bytes
            if self._length > self._max_messages or self._bytes > self._max_bytes:
                self._trim()

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Return entries that were taken and not delivered; they stand where they stood before."""
        with self._lock:
            for entry in sorted(entries, key=lambda entry: entry.sequence, reverse=True):
                if self._closed:
                    self._count_drop("not delivered before the end")
                    continue
                # Whatever still waits of its topic was behind it: a lane is emptied from its head, or of a whole topic.
                self._lanes[entry.rank].appendleft(entry)
                self._length += 1
                self._bytes += entry.size_bytes
            self._trim()

    def get(self) -> Entry | None:
        """The oldest entry that has not expired, or None."""
        with self._lock:
            now_ns = 0
            while True:
                lane = self._head_lane()
                if lane is None:
                    return None
                entry = self._remove(lane)
                if entry.expires_mono_ns is None:
                    return entry
                now_ns = now_ns or self._clock.monotonic_ns()
                if entry.expires_mono_ns > now_ns:
                    return entry
                self._count_drop("expired")

    def get_of(self, topic: str) -> Entry | None:
        """The oldest entry of one topic, before its turn."""
        with self._lock:
            for lane in self._lanes:
                for entry in lane:
                    if entry.message.topic == topic:
                        lane.remove(entry)
                        self._length -= 1
                        self._bytes -= entry.size_bytes
                        return entry
        return None

    def retained_topics(self) -> set[str]:
        """Topics for which a retained message waits."""
        with self._lock:
            return {entry.message.topic for lane in self._lanes for entry in lane if entry.message.retain}

    def drop_expired(self) -> None:
        """Give up every expired message; for the time when nothing is taken out."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            for lane in self._lanes:
                for _ in range(len(lane)):
                    entry = self._remove(lane)
                    if entry.expires_mono_ns is not None and entry.expires_mono_ns <= now_ns:
                        self._count_drop("expired")
                    else:
                        lane.append(entry)
                        self._length += 1
                        self._bytes += entry.size_bytes

    def close(self) -> None:
        """Take no more, and count all that waits as dropped."""
        with self._lock:
            self._closed = True
            if self._length:
                self._count_drop("not delivered before the end", self._length)
            for lane in self._lanes:
                lane.clear()
            self._length = self._bytes = 0

    def _head_lane(self) -> deque[Entry] | None:
        best: deque[Entry] | None = None
        for lane in self._lanes:
            if lane and (best is None or lane[0].sequence < best[0].sequence):
                best = lane
        return best

    def _remove(self, lane: deque[Entry]) -> Entry:
        entry = lane.popleft()
        self._length -= 1
        self._bytes -= entry.size_bytes
        return entry

    def _trim(self) -> None:
        while self._length > self._max_messages or self._bytes > self._max_bytes:
            self._remove(next(lane for lane in self._lanes if lane))
            self._count_drop("the queue was full")

    def _count_drop(self, reason: str, count: int = 1) -> None:
        self._drops[reason] += count
        self._dropped += count
