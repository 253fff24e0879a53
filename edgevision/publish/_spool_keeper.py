"""The keeper of the spool: the one thread that waits for the disk.

It opens the journal, writes what was handed over (many messages a transaction, with an fsync), takes out what the broker has
acknowledged (without one: a lost deletion costs a repetition, which a consumer removes), reads back what did not fit in
memory, and gives up what is too old or too much. Whatever the disk does, the daemon goes on: full, read-only or failing, the
spool works in memory and tries again; a damaged journal is set aside.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from edgevision.clock import Clock
from edgevision.errors import StateError
from edgevision.publish._journal import DamagedError, Journal, damaged
from edgevision.publish._journal_lock import JournalLock
from edgevision.publish._report import Report
from edgevision.publish._spool import COMMIT_EVERY_S, Spool
from edgevision.publish._spool_damage import Damage
from edgevision.publish._spool_memory import LANES
from edgevision.publish._spool_options import SpoolOptions

_log = logging.getLogger(__name__)

RETRY_S = 5.0
"""How long a disk that failed is left in peace."""
_SWEEP_S = 30.0
_SETTLE_S = 1.0
_BATCH = 1000
_READ = 100
"""Rows read at once: more would hold the interpreter's lock for longer than a live message should wait."""
_READ_BYTES = 4 * 2**20


class SpoolKeeper:
    """Keeps a spool in a journal, from `start` to `close`."""

    def __init__(
        self,
        spool: Spool,
        *,
        path: Path,
        options: SpoolOptions,
        clock: Clock,
        open_journal: Callable[..., Journal] = Journal,
    ) -> None:
        """Take the journal's lock, where the disk lets us.

        Raises:
            StateError: another daemon owns the journal.
        """
        self._spool = spool
        self._path = path
        self._options = options
        self._clock = clock
        self._open_journal = open_journal
        self._report = Report(log=_log, name="spool", clock=clock)
        self._journal: Journal | None = None
        self._inode = 0
        self._failed = False
        self._retry_ns = self._committed_ns = self._swept_ns = self._settled_ns = 0
        self._lock: JournalLock | None = None
        self._damage = Damage(path, clock=clock)
        try:
            self._take_lock()
        except OSError as error:
            self._fail(error)
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, deadline_s: float) -> None:
        """Write what was handed over, and close the journal; a disk that stalls is waited for until the deadline."""
        self._spool.closing = True
        self._spool.hurry.set()
        self._spool.work.set()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        else:
            self._let_go()
        self._spool.end()
        self._tell_drops(at_once=True)
        kept = self._spool.stats.waiting
        if kept and not self._thread.is_alive():
            _log.info("spool: %d messages are kept in %s for the next start", kept, self._path)

    def _take_lock(self) -> None:
        if self._lock is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = JournalLock(self._path.with_suffix(".lock"))

    def _run(self) -> None:
        try:
            while True:
                self._spool.work.clear()
                closing = self._spool.closing
                self._once(closing=closing)
                if closing:
                    return
                self._clock.wait(self._spool.work, self._pause_s())
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._close_journal()
        if self._lock is not None:
            self._lock.release()

    def _pause_s(self) -> float:
        if self._spool.settled or self._failed:
            return _SETTLE_S
        return _SWEEP_S

    def _once(self, *, closing: bool) -> None:
        """One round: whatever is due."""
        try:
            if self._failed and self._clock.monotonic_ns() < self._retry_ns and not closing:
                if self._journal is not None:
                    self._read_back(self._journal)
                return
            self._gather()
            self._spool.busy(True)
            journal = self._journal or self._open()
            if journal is None:
                return
            self._check_file()
            self._write(journal, closing=closing)
            self._read_back(journal)
            self._sweep(journal, closing=closing)
            self._look_for_damage()
            if self._failed:
                self._failed = False
                self._report.recovered()
                self._report.note(f"writes to {self._path} again")
            self._spool.well(f"writes to {self._path}")
        except DamagedError as error:
            self._set_aside(str(error))
        except sqlite3.Error as error:
            found = damaged(error)
            if found is not None:
                self._set_aside(str(found))
            else:
                self._fail(error)
        except (OSError, StateError) as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  the top of this thread: say it, and go on in memory
            _log.exception("spool: internal error")
            self._fail(error)
        finally:
            self._spool.busy(False)
            self._tell_drops()

    def _gather(self) -> None:
        """Let commits be a little apart, so that messages share them."""
        rest_s = COMMIT_EVERY_S - (self._clock.monotonic_ns() - self._committed_ns) / 1e9
        if rest_s > 0 and self._committed_ns:
            self._clock.wait(self._spool.hurry, rest_s)

    def _open(self) -> Journal | None:
        self._take_lock()
        self._journal = journal = self._open_journal(self._path, clock=self._clock)
        self._inode = self._path.stat().st_ino
        if self._spool.base is None:
            self._spool.opened(highest_id=journal.highest_id, count=journal.count)
            if journal.count:
                _log.info("spool: %d messages of an earlier run wait in %s", journal.count, self._path)
        return journal

    def _check_file(self) -> None:
        """SQLite would go on writing into a file that somebody has deleted."""
        try:
            there = self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            there = False
        if not there:
            raise DamagedError("was deleted or replaced while it was in use")

    def _write(self, journal: Journal, *, closing: bool) -> None:
        base = self._spool.base or 0
        while True:
            items = self._spool.unsaved(_BATCH)
            due = closing or self._clock.monotonic_ns() - self._settled_ns > _SETTLE_S * 1e9
            numbers = self._spool.to_delete() if items or due or len(self._spool.settled) >= _BATCH // 4 else []
            if not items and not numbers:
                return
            journal.begin(durable=bool(items))
            journal.delete(base + number for number in numbers)
            journal.insert([(base + item.number, item.lane, item.made_mono_ns, item.message) for item in items])
            self._make_room(journal)
            journal.commit()
            self._committed_ns = self._settled_ns = self._clock.monotonic_ns()
            self._spool.left(numbers, journal_bytes=journal.size_bytes, oldest_s=journal.oldest_age_s())
            self._spool.saved(items)
            self._spool.hurry.clear()
            if len(items) < _BATCH:
                return

    def _make_room(self, journal: Journal) -> None:
        """Give up what is too much: what came in last has come in already, so it takes part."""
        skip = 0
        while journal.size_bytes > self._options.max_bytes and skip < journal.count:
            lowest_first = self._options.when_full == "lowest"
            victims = journal.victims(lowest_first=lowest_first, skip=skip, limit=64)
            excess, chosen = journal.size_bytes - self._options.max_bytes, []
            for row_id, size_bytes in victims:
                if excess <= 0:
                    break
                chosen.append(row_id)
                excess -= size_bytes
            claimed = self._spool.claim(chosen, "the journal was full")
            skip += len(chosen) - len(claimed)
            journal.delete(claimed)

    def _read_back(self, journal: Journal) -> None:
        for lane in LANES:
            after = self._spool.wanted(lane)
            if after is None:
                continue
            average = journal.size_bytes // max(1, journal.count) + 1
            limit = max(1, min(_READ, _READ_BYTES // average))
            rows = journal.read(lane=lane, after=after, limit=limit)
            self._spool.refill(lane, rows, all_read=len(rows) < limit)

    def _sweep(self, journal: Journal, *, closing: bool) -> None:
        now_ns = self._clock.monotonic_ns()
        due = now_ns - self._swept_ns >= _SWEEP_S * 1e9 and journal.count > 0
        if not due and self._swept_ns and not closing:
            return
        self._swept_ns = now_ns
        journal.begin(durable=False)
        while claimed := self._spool.claim(
            journal.outlived(max_age_s=self._options.max_age_s, limit=_BATCH), "too old"
        ):
            journal.delete(claimed)
        while claimed := self._spool.claim(journal.expired(limit=_BATCH), "expired"):
            journal.delete(claimed)
        journal.note_clock()
        journal.commit()
        if not journal.count:
            journal.shrink()
        self._spool.left((), journal_bytes=journal.size_bytes, oldest_s=journal.oldest_age_s())

    def _fail(self, error: Exception) -> None:
        """In memory from now on, until the disk is back."""
        self._failed = True
        self._retry_ns = self._clock.monotonic_ns() + int(RETRY_S * 1e9)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"cannot write the journal {self._path}: {reason}"
        readable = False
        if self._journal is not None:
            try:
                self._journal.roll_back()
                readable = True
            except sqlite3.Error as worse:
                _log.debug("spool: rolling back failed too: %s", worse)
                self._close_journal()
        self._spool.failed(text, unreadable=not readable)
        self._report.trouble(f"{text}: durable messages are kept in memory until it can be")

    def _close_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is None:
            return
        try:
            journal.close()
        except sqlite3.Error as error:
            _log.warning("spool: the journal %s was not closed cleanly: %s", self._path, error)

    def _set_aside(self, found: str) -> None:
        rows = self._journal.count if self._journal is not None else 0
        self._close_journal()
        try:
            text = self._damage.set_aside(found)
        except OSError as error:
            self._fail(error)
            return
        self._spool.journal_gone(rows)
        self._look_for_damage()
        self._report.trouble(f"{text}; a new one is begun")
        self._spool.work.set()

    def _look_for_damage(self) -> None:
        alarm = self._damage.alarm()
        if alarm is not None:
            self._spool.alarm("damaged", alarm)

    def _tell_drops(self, *, at_once: bool = False) -> None:
        self._report.drops(self._spool, at_once=at_once)
