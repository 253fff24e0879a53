"""What has been handed on, in a small SQLite file: ranges of `seq` for each topic and boot, and the gaps between them.

A stream is one topic within one start of a daemon (`boot_id`); its `seq` counts up by one. Ranges and not single numbers: a
stream without loss is one row, however long it lives. All bounds are against a network that makes things up: at worst a
message is handed on twice, and none is held back.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgevision.consume.identity import Delivered
from edgevision.errors import StateError

_VERSION = 1
_APPLICATION_ID = 0x45564C31  # "EVL1"
_MAX_STREAMS = 10_000
_MAX_RANGES = 1000
_SCHEMA = """
CREATE TABLE streams (topic TEXT, boot_id TEXT, used INTEGER NOT NULL, will TEXT NOT NULL, PRIMARY KEY (topic, boot_id));
CREATE TABLE ranges (topic TEXT, boot_id TEXT, first INTEGER, last INTEGER NOT NULL, PRIMARY KEY (topic, boot_id, first));
CREATE TABLE gaps (
    topic TEXT, boot_id TEXT, first INTEGER, last INTEGER NOT NULL, missing INTEGER NOT NULL,
    PRIMARY KEY (topic, boot_id, first)
);
CREATE TABLE output (only INTEGER PRIMARY KEY CHECK (only = 1), file TEXT NOT NULL, size_bytes INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something about the stream itself."""

    notice: Literal["gap", "gap-closed"]
    topic: str
    boot_id: str
    first: int
    last: int
    """Messages `first` to `last` are missing; or, for `gap-closed`, have all come late."""


@dataclass(slots=True, eq=False)
class _Stream:
    ranges: list[list[int]] = field(default_factory=list)
    """[first, last] of what was handed on, in order."""
    gaps: dict[int, list[int]] = field(default_factory=dict)
    """first: [last, still missing]"""
    will: str = ""
    """`published_at` of the newest last will, which stands outside the count."""
    used: int = 0
    dirty: bool = True


class Ledger:
    """Remembers; used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            StateError: it cannot be opened, or is none of ours.
        """
        self._path = path
        self._uses = 0
        self._streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()
        self._forgotten: list[tuple[str, str]] = []
        self._topics: dict[str, int] = {}
        """How many streams of a topic are known."""
        self.forgotten = 0
        """Streams that had to make room."""
        self.output: tuple[str, int] | None = None
        """The file that lines went to, and how long it was when they were marked as handed on."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
            try:
                self._open()
                self._load()
            except BaseException:
                self._db.close()
                raise
        except OSError as error:
            raise StateError(
                f"--state {path}: {error.strerror or error}: name a file in a folder of your own"
            ) from error
        except sqlite3.Error as error:
            raise StateError(
                f"--state {path} cannot be used ({error}): name another file, or move this one away and accept that "
                "messages may be handed on again"
            ) from error

    def _open(self) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        application = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        # Exclusive: two consumers with one memory would each remove what the other has handed on.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        if not int(self._db.execute("PRAGMA schema_version").fetchone()[0]):
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; PRAGMA application_id = {_APPLICATION_ID}; COMMIT"
            )
        elif (version, application) != (_VERSION, _APPLICATION_ID):
            raise sqlite3.DatabaseError("it is no consumer's memory of this version")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN EXCLUSIVE")
        self._db.execute("COMMIT")

    def _load(self) -> None:
        self._streams.clear()
        self._topics.clear()
        self._forgotten.clear()
        for topic, boot_id, used, will in self._db.execute(
            "SELECT topic, boot_id, used, will FROM streams ORDER BY used"
        ):
            self._streams[topic, boot_id] = _Stream(will=will, used=used, dirty=False)
            self._topics[topic] = self._topics.get(topic, 0) + 1
            self._uses = max(self._uses, used)
        for topic, boot_id, first, last in self._db.execute("SELECT * FROM ranges ORDER BY first"):
            self._streams[topic, boot_id].ranges.append([first, last])
        for topic, boot_id, first, last, missing in self._db.execute("SELECT * FROM gaps"):
            self._streams[topic, boot_id].gaps[first] = [last, missing]
        row = self._db.execute("SELECT file, size_bytes FROM output").fetchone()
        self.output = (str(row[0]), int(row[1])) if row else None

    def note(self, found: Delivered) -> tuple[bool, list[Notice]]:
        """Whether a message is new, and what its number tells; it counts as handed on from the next `commit`."""
        key = (found.topic, found.boot_id)
        stream = self._streams.get(key)
        if stream is None:
            # A topic that is known has begun anew: its count begins at 1. Of one that is not, nothing is known before.
            stream = _Stream(ranges=[[0, 0]] if found.topic in self._topics else [])
            self._streams[key] = stream
            self._topics[found.topic] = self._topics.get(found.topic, 0) + 1
            self._make_room()
        self._uses += 1
        stream.used = self._uses
        self._streams.move_to_end(key)
        if found.seq == 0:
            is_new = found.published_at != stream.will
            if is_new:
                stream.will, stream.dirty = found.published_at, True
            return is_new, []
        gaps = _add(stream, found.seq)
        if gaps is None:
            return False, []
        stream.dirty = True
        return True, [
            Notice(notice=kind, topic=found.topic, boot_id=found.boot_id, first=first, last=last)
            for kind, first, last in gaps
        ]

    def _make_room(self) -> None:
        while len(self._streams) > _MAX_STREAMS:
            key, _ = self._streams.popitem(last=False)
            self._forgotten.append(key)
            self.forgotten += 1
            left = self._topics[key[0]] - 1
            if left:
                self._topics[key[0]] = left
            else:
                del self._topics[key[0]]

    def commit(self, output: tuple[str, int] | None = None) -> None:
        """What was noted has been handed on: write it down, with the length of the file it went to.

        Raises:
            StateError: the disk does not let us; nothing is then marked.
        """
        try:
            self._db.execute("BEGIN")
            for topic, boot_id in self._forgotten:
                self._clear(topic, boot_id)
            for (topic, boot_id), stream in self._streams.items():
                if not stream.dirty:
                    continue
                self._clear(topic, boot_id)
                place = (topic, boot_id)
                self._db.execute("INSERT INTO streams VALUES (?, ?, ?, ?)", (*place, stream.used, stream.will))
                rows = [(*place, first, last) for first, last in stream.ranges]
                self._db.executemany("INSERT INTO ranges VALUES (?, ?, ?, ?)", rows)
                gaps = [(*place, first, last, missing) for first, (last, missing) in stream.gaps.items()]
                self._db.executemany("INSERT INTO gaps VALUES (?, ?, ?, ?, ?)", gaps)
            if output is not None:
                self._db.execute("INSERT OR REPLACE INTO output VALUES (1, ?, ?)", output)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StateError(f"--state {self._path} cannot be written ({error}): make room on its disk") from error
        self._forgotten.clear()
        for stream in self._streams.values():
            stream.dirty = False

    def _clear(self, topic: str, boot_id: str) -> None:
        for table in ("streams", "ranges", "gaps"):
            self._db.execute(f"DELETE FROM {table} WHERE topic = ? AND boot_id = ?", (topic, boot_id))  # noqa: S608  ours

    def close(self) -> None:
        """Close the file; what was not committed is forgotten."""
        self._db.close()


def _add(stream: _Stream, seq: int) -> list[tuple[Literal["gap", "gap-closed"], int, int]] | None:
    """Put a number into its range; None where it is there already, else the gaps that it opens or closes."""
    ranges = stream.ranges
    at = bisect_right(ranges, [seq, _INFINITE]) - 1
    if at >= 0 and seq <= ranges[at][1]:
        return None
    found: list[tuple[Literal["gap", "gap-closed"], int, int]] = []
    if ranges and at == len(ranges) - 1 and seq > ranges[at][1] + 1:
        first, last = ranges[at][1] + 1, seq - 1
        stream.gaps[first] = [last, last - first + 1]
        found.append(("gap", first, last))
    else:
        for first, gap in list(stream.gaps.items()):
            if first <= seq <= gap[0]:
                gap[1] -= 1
                if gap[1] == 0:
                    del stream.gaps[first]
                    found.append(("gap-closed", first, gap[0]))
    after = at + 1 < len(ranges) and ranges[at + 1][0] == seq + 1
    if at >= 0 and ranges[at][1] == seq - 1:
        ranges[at][1] = ranges.pop(at + 1)[1] if after else seq
    elif after:
        ranges[at + 1][0] = seq
    else:
        ranges.insert(at + 1, [seq, seq])
    while len(ranges) > _MAX_RANGES:
        ranges.pop(0)
    while len(stream.gaps) > _MAX_RANGES:
        del stream.gaps[min(stream.gaps)]
    return found


_INFINITE = 2**63
