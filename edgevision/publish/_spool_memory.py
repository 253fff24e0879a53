"""Durable messages in memory: where each stands, and which is next. What the sink's thread and the pipeline see of the spool.

Order per topic is kept: a topic's messages are all of one kind, and each kind has a lane of its own, which is in order. So an
event need not wait for the results of an hour that an outage has left: lane 0 holds retained topics (states: few, and wanted
first), lane 1 what is precious (events), lane 2 the bulk (results). A lane keeps the beginning of its backlog in memory; the
rest is in the journal alone, and read back by the keeper.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from edgevision.clock import Clock
from edgevision.types import Message

STATES, PRECIOUS, BULK = 0, 1, 2
LANES = (STATES, PRECIOUS, BULK)
"""As they stand in the journal too: what an earlier version kept there has its results in lane 1."""
STALLED_S = 2.0
"""A disk that takes longer than this for one thing has stalled: messages go out unsaved."""
_HOPELESS_S = 60.0
"""And after this what is read back from it is not waited for either: new messages overtake it."""
WINDOW = 1000
"""Saved messages of a lane that are held in memory as well; more are read back when their turn comes."""
_MANY_SETTLED = 256
"""Settled messages that are worth a transaction of their own at once."""
_MANY_DONE = 64
"""Done messages that are kept in memory, beside as many as wait, before they are sought out: so each costs little."""

Place = Literal["waiting", "ready", "taken", "done"]


@dataclass(slots=True, kw_only=True, eq=False)
class Spooled:
    """A durable message in memory, and where it stands."""

    number: int
    """Place in the order: above 0 for this process, below for what an earlier one left behind."""
    lane: int
    message: Message
    made_mono_ns: int
    expires_mono_ns: int | None
    recovered: bool = False
    saved: bool = False
    place: Place = "waiting"

    @property
    def size_bytes(self) -> int:
        """Bytes of topic and payload."""
        return len(self.message.payload) + len(self.message.topic)

    def has_expired(self, now_ns: int) -> bool:
        """Whether nobody wants it any more."""
        return self.expires_mono_ns is not None and self.expires_mono_ns <= now_ns


@dataclass(slots=True, eq=False)
class Lane:
    ready: deque[Spooled] = field(default_factory=deque)
    cursor: int | None = None
    """The number up to which the journal has been read, or what was saved kept in memory; None: from the beginning."""
    behind: bool = False
    """The journal holds more after the cursor."""


class SpoolMemory:
    """Durable messages; `put` from any thread, the rest by the sink's."""

    def __init__(self, *, max_messages: int, max_bytes: int, clock: Clock, on_ready: Callable[[], None]) -> None:
        """Begin empty and without a journal.

        Args:
            max_messages: how many may wait in memory for the disk.
            max_bytes: and how many bytes.
            clock: the time.
            on_ready: called when something may be taken; must not block.
        """
        self.work = threading.Event()
        """Set when the keeper has something to do."""
        self.hurry = threading.Event()
        """Set when somebody waits for the disk: commits are not gathered."""
        self.closing = False
        self.base: int | None = None
        """The journal's id of number 0; None before it was first opened."""
        self.settled: set[int] = set()
        """Numbers of messages that may leave the journal."""
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._clock = clock
        self._on_ready = on_ready
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._lanes = tuple(Lane() for _ in LANES)
        self._unsaved: deque[Spooled] = deque()
        self._waiting: dict[int, deque[Spooled]] = {}
        """What is only in memory, by priority; those that have gone on leave at the front, or with `_forget_done`."""
        self._unsaved_count = self._unsaved_bytes = 0
        self._memory: dict[int, Spooled] = {}
        self._next_number = 1
        self._offered = self._recovered = self._sent = self._replayed = self._saved = self._set_aside = 0
        self._drops: Counter[str] = Counter()
        self._new_drops: Counter[str] = Counter()
        self._trouble = "the journal is being opened"
        self._failed = False
        self._unreadable = True
        self._busy_since_ns: int | None = clock.monotonic_ns()
        self._alarms: dict[str, str] = {}
        self._journal_bytes = 0
        self._oldest_s = 0.0

    def put(self, message: Message) -> None:
        """Take a message; never waits."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            self._offered += 1
            if self.closing:
                self._drop("after the end")
                return
            item = Spooled(
                number=self._next_number,
                lane=STATES if message.retain else PRECIOUS if message.priority else BULK,
                message=message,
                made_mono_ns=now_ns,
                expires_mono_ns=None if message.expires_s is None else now_ns + int(message.expires_s * 1e9),
            )
            self._next_number += 1
            self._memory[item.number] = item
            self._unsaved.append(item)
            self._waiting.setdefault(message.priority, deque()).append(item)
            self._unsaved_count += 1
            self._unsaved_bytes += item.size_bytes
            while self._unsaved_count > self._max_messages or self._unsaved_bytes > self._max_bytes:
                victim = self._victim()
                if victim is None:
                    break  # all is on its way
                self._finish(victim, "the disk was too slow or failed")
        # Not more than this: to wake the sink's thread from here would cost this one the interpreter's lock.
        self.work.set()

    def _victim(self) -> Spooled | None:
        """The oldest of the lowest priority that waits for the disk."""
        self._prune()
        lowest = min((priority for priority, items in self._waiting.items() if items), default=None)
        return None if lowest is None else self._waiting[lowest].popleft()

    def _prune(self) -> None:
        for items in self._waiting.values():
            while items and items[0].place != "waiting":
                items.popleft()

    def take(self, lane: int) -> Spooled | None:
        """The next message of a lane to be sent, or None; it is then the caller's to settle or to put back."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            found = self._next(self._lanes[lane], lane, now_ns)
            if self._lanes[lane].behind and len(self._lanes[lane].ready) < WINDOW // 2:
                self.work.set()
            if found is not None:
                found.place = "taken"
            return found

    def peek(self, lane: int) -> Spooled | None:
        """What `take` would give."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            found = self._next(self._lanes[lane], lane, now_ns)
            if found is not None and found.place == "ready":
                self._lanes[lane].ready.appendleft(found)
            return found

    def _next(self, lane: Lane, number: int, now_ns: int) -> Spooled | None:
        while lane.ready:
            item = lane.ready.popleft()
            if item.place == "ready" and not self._expired(item, now_ns):
                return item
        if not self._released(now_ns) or (lane.behind and not self._hopeless(now_ns)):
            return None
        found, expired = None, []
        for item in self._unsaved:
            if item.place != "waiting" or item.lane != number:
                continue
            if not item.has_expired(now_ns):
                found = item
                break
            expired.append(item)
        for item in expired:  # afterwards: it takes them out of what was walked through
            self._finish(item, "expired")
        return found

    def _expired(self, item: Spooled, now_ns: int) -> bool:
        if not item.has_expired(now_ns):
            return False
        self._finish(item, "expired")
        return True

    def _released(self, now_ns: int) -> bool:
        """Whether messages are sent although the disk has not got them."""
        return self._failed or self._stalled_s(now_ns) > STALLED_S

    def _hopeless(self, now_ns: int) -> bool:
        return self._unreadable or self._stalled_s(now_ns) > _HOPELESS_S

    def _stalled_s(self, now_ns: int) -> float:
        return 0.0 if self._busy_since_ns is None else (now_ns - self._busy_since_ns) / 1e9

    def is_released(self) -> bool:
        """Whether messages are sent without the disk; nobody then tells of new ones."""
        return self._released(self._clock.monotonic_ns())

    def waits(self) -> bool:
        """Whether anything has still to be delivered."""
        with self._lock:
            return self._offered + self._recovered > self._sent + self._drops.total()

    def has_states(self) -> bool:
        """Whether a state has still to be sent, wherever it is."""
        with self._lock:
            lane = self._lanes[STATES]
            return lane.behind or any(
                item.lane == STATES and item.place in {"waiting", "ready"} for item in self._memory.values()
            )

    def put_back(self, items: Iterable[Spooled]) -> None:
        """Return messages that were taken and not delivered; they stand where they stood before."""
        with self._lock:
            for item in sorted(items, key=lambda item: item.number, reverse=True):
                if item.place == "taken":
                    item.place = "ready"
                    self._lanes[item.lane].ready.appendleft(item)

    def settle(self, item: Spooled, refusal: str | None, *, late: bool) -> None:
        """The broker has acknowledged a message, or refused it for good (`refusal` is the word to count it under)."""
        with self._lock:
            if item.place != "taken":
                return
            if refusal is None:
                self._sent += 1
                self._replayed += late
            self._finish(item, refusal)
            wake = len(self.settled) == 1 or len(self.settled) >= _MANY_SETTLED
        if wake:
            self.work.set()

    def _finish(self, item: Spooled, reason: str | None) -> None:
        item.place = "done"
        self._memory.pop(item.number, None)
        if reason is not None:
            self._drop(reason)
        if item.saved:
            self.settled.add(item.number)
        else:
            self._unsaved_count -= 1
            self._unsaved_bytes -= item.size_bytes
            while self._unsaved and self._unsaved[0].place == "done":
                self._unsaved.popleft()
            self._prune()
            # One that waits at the front, such as a state that nothing pushes out, would keep all that is done behind it.
            if len(self._unsaved) > 2 * self._unsaved_count + _MANY_DONE:
                self._forget_done()
            self._changed.notify_all()

    def _forget_done(self) -> None:
        self._unsaved = deque(item for item in self._unsaved if item.place != "done")
        for priority, items in self._waiting.items():
            self._waiting[priority] = deque(item for item in items if item.place == "waiting")

    def _drop(self, reason: str, count: int = 1) -> None:
        self._drops[reason] += count
        self._new_drops[reason] += count
