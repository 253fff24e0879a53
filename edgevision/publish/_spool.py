"""The spool: durable messages between the pipeline, the journal on the disk, and the connection.

`put` is called by the pipeline and never waits: it hands over in memory. The keeper's thread (`_spool_keeper`) writes what
was handed over into the journal, many at a time, and reads back what did not fit in memory; it is the only one that ever
waits for the disk. The sink's thread takes messages that are safe in the journal, and settles them once the broker has
acknowledged them; then they leave the journal.

What "accepted" means: `publish` has only handed over. A message is safe once it counts as `saved` (`flush` waits for that);
what was handed over and not saved when the process is killed is lost. Where the disk keeps up, that is what came since the last
commit: in the last `COMMIT_EVERY_S` and the disk's own time for one fsync; where it does not, all that counts as `unsaved`.
Nothing is sent before it is safe, so no consumer ever knows of a message that the box has forgotten. There is one exception:
where the disk fails, or stalls for longer than `STALLED_S`, messages are sent from memory, because a late event is worth more
than a safe one that nobody gets.

Commits are `synchronous = FULL`: in WAL mode NORMAL would lose the last commits with the power, and keeps no promise. An fsync
takes 0.2 to 8 ms where it was measured (`benchmarks/spool`), and more on a memory card; it costs the pipeline nothing, because
it is the keeper who waits, and all that came meanwhile shares the next one. Deletions do without.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from edgevision.publish._journal import Row
from edgevision.publish._spool_memory import STALLED_S, WINDOW, Lane, Spooled, SpoolMemory
from edgevision.publish.base import SpoolStats

COMMIT_EVERY_S = 0.02
"""Commits are at least so far apart: at high rates several messages share an fsync, and flash lives longer."""


class Spool(SpoolMemory):
    """The whole: beside what the sink sees, the keeper's side, and the counts."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put so far is safe on the disk, delivered or dropped; False when it took too long."""
        with self._changed:
            last = self._next_number - 1
            self.hurry.set()
            self.work.set()
            return self._changed.wait_for(
                lambda: next((item.number for item in self._unsaved if item.place != "done"), last + 1) > last,
                timeout_s,
            )

    @property
    def stats(self) -> SpoolStats:
        """The counts now."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            stalled_s = self._stalled_s(now_ns)
            trouble = self._trouble if self._failed or not stalled_s > STALLED_S else "the disk does not answer"
            alarms = dict(self._alarms)
            if stalled_s > STALLED_S:
                alarms["disk"] = "the disk of the journal does not answer: durable messages are only in memory"
            dropped = self._drops.total()
            return SpoolStats(
                state="memory" if self._failed or stalled_s > STALLED_S else "journal",
                reason=trouble,
                offered=self._offered,
                recovered=self._recovered,
                sent=self._sent,
                replayed=self._replayed,
                saved=self._saved,
                unsaved=self._unsaved_count,
                waiting=self._offered + self._recovered - self._sent - dropped,
                journal_bytes=self._journal_bytes,
                oldest_s=self._oldest_s,
                set_aside=self._set_aside,
                drops=dict(self._drops),
                alarm="; ".join(alarms.values()),
            )

    def busy(self, doing: bool) -> None:
        """The keeper begins or ends to wait for the disk."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            self._busy_since_ns = now_ns if doing else None

    def unsaved(self, limit: int) -> list[Spooled]:
        """What has to be written next."""
        with self._lock:
            found: list[Spooled] = []
            for item in self._unsaved:
                if len(found) == limit:
                    break
                if item.place != "done":
                    found.append(item)
            return found

    def opened(self, *, highest_id: int, count: int) -> None:
        """The journal is open for the first time and holds `count` messages of an earlier process."""
        with self._lock:
            self.base = highest_id
            self._recovered = count
            for lane in self._lanes:
                lane.behind = count > 0

    def saved(self, items: Sequence[Spooled]) -> None:
        """Messages are safe on the disk."""
        with self._lock:
            done = {item.number for item in items}
            while self._unsaved and (self._unsaved[0].number in done or self._unsaved[0].place == "done"):
                self._unsaved.popleft()
            for item in items:
                item.saved = True
                self._saved += 1
                if item.place == "done":
                    self.settled.add(item.number)  # delivered or given up while it was being written
                    continue
                self._unsaved_count -= 1
                self._unsaved_bytes -= item.size_bytes
                if item.place != "waiting":
                    continue
                lane = self._lanes[item.lane]
                if lane.behind or len(lane.ready) >= WINDOW:
                    lane.behind = True
                    del self._memory[item.number]
                    item.place = "done"  # in memory; the journal has it
                else:
                    self._make_ready(lane, item)
            self._prune()
            self._changed.notify_all()
        self._on_ready()

    def _make_ready(self, lane: Lane, item: Spooled) -> None:
        item.place = "ready"
        lane.ready.append(item)
        lane.cursor = item.number

    def wanted(self, lane: int) -> int | None:
        """After which id to read a lane on; None where nothing has to be read."""
        with self._lock:
            found = self._lanes[lane]
            if not found.behind or len(found.ready) >= WINDOW // 2 or self.base is None:
                return None
            return -1 if found.cursor is None else self.base + found.cursor

    def refill(self, lane: int, rows: Sequence[Row], *, all_read: bool) -> None:
        """Messages that were read back, in order; `all_read` where the journal holds no more of the lane."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            found, base = self._lanes[lane], self.base or 0
            for row in rows:
                number = row.id - base
                found.cursor = number
                if number in self._memory or number in self.settled:
                    continue  # sent while the disk stalled, and saved only then
                item = Spooled(
                    number=number,
                    lane=lane,
                    message=row.message,
                    made_mono_ns=now_ns - int(row.age_s * 1e9),
                    expires_mono_ns=None if row.expires_in_s is None else now_ns + int(row.expires_in_s * 1e9),
                    recovered=number <= 0,
                    saved=True,
                )
                self._memory[number] = item
                self._make_ready(found, item)
            found.behind = not all_read
        if rows:
            self._on_ready()

    def claim(self, ids: Iterable[int], reason: str) -> list[int]:
        """Give messages up, except those on their way; returns what may be deleted."""
        with self._lock:
            base = self.base or 0
            claimed: list[int] = []
            for row_id in ids:
                item = self._memory.get(row_id - base)
                if row_id - base in self.settled or (item is not None and item.place == "taken"):
                    continue
                claimed.append(row_id)
                if item is None:
                    self._drop(reason)
                    continue
                was_saved = item.saved
                self._finish(item, reason)
                if was_saved:
                    self.settled.discard(item.number)
            return claimed

    def left(self, numbers: Iterable[int], *, journal_bytes: int, oldest_s: float) -> None:
        """Settled messages have left the journal, which now holds so much."""
        with self._lock:
            self.settled.difference_update(numbers)
            self._journal_bytes = journal_bytes
            self._oldest_s = round(oldest_s, 1)

    def to_delete(self) -> list[int]:
        """Numbers of messages that may leave the journal."""
        with self._lock:
            return sorted(self.settled)

    def failed(self, reason: str, *, unreadable: bool) -> None:
        """The disk does not let us: messages go out from memory."""
        with self._lock:
            self._failed, self._trouble = True, reason
            self._unreadable = unreadable
            self._alarms["disk"] = f"{reason}: durable messages are only in memory"
        self._on_ready()

    def well(self, state: str) -> None:
        """The journal is written again."""
        with self._lock:
            self._failed = self._unreadable = False
            self._trouble = state
            self._alarms.pop("disk", None)

    def alarm(self, kind: str, text: str) -> None:
        """What a person has to look at; empty ends it."""
        with self._lock:
            if text:
                self._alarms[kind] = text
            else:
                self._alarms.pop(kind, None)

    def journal_gone(self, rows: int) -> None:
        """The journal with `rows` messages is lost: what is still in memory has to be written anew."""
        with self._lock:
            self._set_aside += 1
            again = [item for item in self._memory.values() if item.saved]
            for item in again:
                item.saved = False
                self._unsaved_count += 1
                self._unsaved_bytes += item.size_bytes
            waiting = [item for item in self._unsaved if item.place != "done"]
            self._unsaved = deque(sorted([*again, *waiting], key=lambda item: item.number))
            lost = rows - len(again) - len(self.settled)
            if lost > 0 and self.base is not None:
                self._drop("lost with a damaged journal", lost)
            self.settled.clear()
            for lane in self._lanes:
                lane.behind = False

    @property
    def dropped(self) -> int:
        """Messages given up since the spool was made."""
        return self._drops.total()

    def take_drops(self) -> Counter[str]:
        """What was given up since the last call, by reason in words."""
        with self._lock:
            drops, self._new_drops = self._new_drops, Counter()
            return drops

    def end(self) -> None:
        """Nothing more is written: what is only in memory is lost, and counted."""
        with self._lock:
            self.closing = True
            for item in [item for item in self._unsaved if item.place != "done"]:
                self._finish(item, "not saved before the end")
            self._changed.notify_all()
