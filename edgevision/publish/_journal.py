"""The file of the spool: an SQLite journal in WAL mode, and what can be wrong with it.

Why SQLite: a power cut may hit between any two writes, and its recovery has been tested for that for twenty years. One
process owns the file (`_journal_lock`), one thread uses it; who waits for whom, and what is kept in memory, is the spool's.

Order is the order of `id`, which the spool gives. Ages are counted on a clock of the journal's own: it goes on with the
monotonic clock while this machine is up, also over a restart of the daemon, and stands still while the machine is off. The
wall clock of an edge box may step by years, so it decides nothing here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevision.clock import Clock
from edgevision.errors import StateError
from edgevision.types import Message

MACHINE_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""New at each start of the machine (random(4)); within one, the monotonic clock goes on."""
ROW_BYTES = 96
"""What a message takes in the file beside its topic and payload: header, numbers, its share of the index; measured."""

_APPLICATION_ID = 0x45564A31  # "EVJ1": another program's file is not taken for a journal
_VERSION = 1
_BUSY_S = 2.0
"""How long another process may hold the file (a backup, somebody's sqlite3) before that counts as trouble."""
_SCHEMA = """
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, priority INTEGER NOT NULL, at_s REAL NOT NULL, expires_at_s REAL,
    size_bytes INTEGER NOT NULL, topic TEXT NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL,
    content_type TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX messages_by_priority ON messages (priority);
CREATE TABLE clock (
    only INTEGER PRIMARY KEY CHECK (only = 1), at_s REAL NOT NULL, machine TEXT NOT NULL, mono_ns INTEGER NOT NULL
);
"""


class DamagedError(StateError):
    """The file is no journal, or is one that cannot be trusted; the text says what SQLite found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A message in the journal."""

    id: int
    lane: int
    age_s: float
    """Seconds since it was made, as the journal counts them."""
    size_bytes: int
    expires_in_s: float | None
    message: Message


class Journal:
    """An open journal; used by one thread. Every method may raise `sqlite3.Error` for the disk."""

    def __init__(self, path: Path, *, clock: Clock, machine_boot: Path = MACHINE_BOOT) -> None:
        """Open or make the file.

        Raises:
            DamagedError: it cannot be trusted.
            sqlite3.OperationalError: the disk does not let us (full, read-only, no rights).
            OSError: the folder cannot be made.
        """
        self.path = path
        self._clock = clock
        self._machine_boot = machine_boot
        path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level None: transactions are ours to begin.
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
            self.count, self.size_bytes, self.highest_id = self._measure()
            self._base_s, self._base_mono_ns = self._start_clock()
            self._synchronous = ""
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        try:
            version = self._pragma("user_version")
            application = self._pragma("application_id")
            if (version, application) == (0, 0) and not self._pragma("schema_version"):
                self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; PRAGMA application_id = {_APPLICATION_ID}; COMMIT"
                )
            elif (version, application) != (_VERSION, _APPLICATION_ID):
                raise DamagedError(f"is no journal of this version (application {application:#x}, version {version})")
            self._db.execute("PRAGMA journal_mode = WAL")
            found = str(self._db.execute("PRAGMA quick_check(1)").fetchone()[0])
            if found != "ok":
                raise DamagedError(found.splitlines()[-1])
        except sqlite3.DatabaseError as error:
            raise damaged(error) or error from error

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _measure(self) -> tuple[int, int, int]:
        row = self._db.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(max(id), 0) FROM messages"
        ).fetchone()
        return int(row[0]), int(row[1]), int(row[2])

    def _start_clock(self) -> tuple[float, int]:
        now_ns = self._clock.monotonic_ns()
        known = self._db.execute("SELECT at_s, machine, mono_ns FROM clock").fetchone()
        newest_s = float(self._db.execute("SELECT coalesce(max(at_s), 0) FROM messages").fetchone()[0])
        if known is None:
            return newest_s, now_ns
        at_s, machine, mono_ns = float(known[0]), str(known[1]), int(known[2])
        if machine == self._machine() and mono_ns <= now_ns:
            at_s += (now_ns - mono_ns) / 1e9
        return max(at_s, newest_s), now_ns

    def _machine(self) -> str:
        try:
            return self._machine_boot.read_text(encoding="ascii").strip()
        except OSError:
            return ""  # none known: the clock then stands still between two starts, which keeps messages longer

    def now_s(self) -> float:
        """The journal's own clock, in seconds."""
        return self._base_s + (self._clock.monotonic_ns() - self._base_mono_ns) / 1e9

    def begin(self, *, durable: bool) -> None:
        """Begin a transaction; `durable` lets its end survive a power cut, and costs an fsync."""
        wanted = "FULL" if durable else "NORMAL"
        if wanted != self._synchronous:
            self._db.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End the transaction: what was done since `begin` stands."""
        self._db.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo what was done since `begin`, as far as the disk lets us, and count anew."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self.count, self.size_bytes, _ = self._measure()

    def insert(self, rows: Sequence[tuple[int, int, int, Message]]) -> None:
        """Write messages: (id, lane, nanoseconds of the monotonic clock when it was made, message)."""
        now_s, now_ns = self.now_s(), self._clock.monotonic_ns()
        values = []
        for number, lane, made_mono_ns, message in rows:
            at_s = now_s - (now_ns - made_mono_ns) / 1e9
            size_bytes = row_bytes(message)
            self.size_bytes += size_bytes
            values.append(
                (
                    number,
                    lane,
                    message.priority,
                    at_s,
                    None if message.expires_s is None else at_s + message.expires_s,
                    size_bytes,
                    # A topic may hold a lone surrogate, which is no UTF-8; whoever sends it will refuse it by name.
                    message.topic.encode("utf-8", "surrogatepass"),
                    message.qos,
                    message.retain,
                    message.content_type,
                    message.payload,
                )
            )
        self._db.executemany("INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self.count += len(values)

    def delete(self, ids: Iterable[int]) -> None:
        """Take messages out; those that are not there do not matter."""
        # In runs, because they mostly leave in the order in which they came, and each statement costs the interpreter's lock.
        for first, last in _runs(sorted(ids)):
            count, size_bytes = self._db.execute(
                "SELECT count(*), coalesce(sum(size_bytes), 0) FROM messages WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchone()
            self._db.execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", (first, last))
            self.count -= int(count)
            self.size_bytes -= int(size_bytes)

    def read(self, *, lane: int, after: int, limit: int) -> list[Row]:
        """The next messages of a lane, in order."""
        now_s = self.now_s()
        found = self._db.execute(
            "SELECT id, at_s, expires_at_s, size_bytes, topic, qos, retain, content_type, payload FROM messages "
            "WHERE id > ? AND lane = ? ORDER BY id LIMIT ?",
            (after, lane, limit),
        )
        return [
            Row(
                id=number,
                lane=lane,
                age_s=now_s - at_s,
                size_bytes=size_bytes,
                expires_in_s=None if expires_at_s is None else expires_at_s - now_s,
                message=Message(
                    topic=topic.decode("utf-8", "surrogatepass"),
                    payload=payload,
                    qos=qos,
                    retain=bool(retain),
                    expires_s=None if expires_at_s is None else expires_at_s - at_s,
                    durable=True,
                    content_type=content_type,
                ),
            )
            for number, at_s, expires_at_s, size_bytes, topic, qos, retain, content_type, payload in found
        ]

    def victims(self, *, lowest_first: bool, skip: int, limit: int) -> list[tuple[int, int]]:
        """What to give up first: (id, bytes)."""
        order = "priority, id" if lowest_first else "id"
        query = f"SELECT id, size_bytes FROM messages ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608  both are ours
        return [(int(number), int(size_bytes)) for number, size_bytes in self._db.execute(query, (limit, skip))]

    def outlived(self, *, max_age_s: float, limit: int) -> list[int]:
        """Messages older than `max_age_s`, the oldest first."""
        before_s = self.now_s() - max_age_s
        found = self._db.execute("SELECT id, at_s FROM messages ORDER BY id LIMIT ?", (limit,)).fetchall()
        return [int(number) for number, at_s in found if at_s < before_s]

    def expired(self, *, limit: int) -> list[int]:
        """Messages that are not worth sending any more."""
        found = self._db.execute("SELECT id FROM messages WHERE expires_at_s <= ? LIMIT ?", (self.now_s(), limit))
        return [int(row[0]) for row in found]

    def oldest_age_s(self) -> float:
        """Age of the oldest message; 0 where there is none."""
        row = self._db.execute("SELECT at_s FROM messages ORDER BY id LIMIT 1").fetchone()
        return max(0.0, self.now_s() - float(row[0])) if row else 0.0

    def note_clock(self) -> None:
        """Write down how far the journal's clock is."""
        self._db.execute(
            "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?)",
            (self.now_s(), self._machine(), self._clock.monotonic_ns()),
        )

    def shrink(self) -> None:
        """Give free pages back to the disk, a few at a time."""
        self._db.execute("PRAGMA incremental_vacuum(256)").fetchall()

    def close(self) -> None:
        """Close the file; what is committed stays."""
        self._db.close()


def _runs(ids: list[int]) -> Iterator[tuple[int, int]]:
    """Unbroken runs of sorted numbers: first and last of each."""
    start = 0
    for index in range(1, len(ids) + 1):
        if index == len(ids) or ids[index] > ids[index - 1] + 1:
            yield ids[start], ids[index - 1]
            start = index


def row_bytes(message: Message) -> int:
    """What a message takes in the file, about."""
    return len(message.payload) + len(message.topic) + ROW_BYTES


def damaged(error: sqlite3.Error) -> DamagedError | None:
    """Whether an error says that the file cannot be trusted (SQLITE_CORRUPT, SQLITE_NOTADB); None is the disk's trouble."""
    # Python raises the bare class for these two alone; the codes themselves can be asked for since 3.11 only.
    return DamagedError(str(error)) if type(error) is sqlite3.DatabaseError else None
