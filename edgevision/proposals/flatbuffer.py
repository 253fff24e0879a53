"""A FlatBuffer read with every offset checked (https://flatbuffers.dev/internals); for TensorFlow Lite's metadata."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

_MAX_ITEMS, _MAX_TEXT = 10_000, 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table; a field that is absent is empty. Raises ValueError or struct.error where the file is damaged."""

    content: bytes
    start: int

    def _unpack(self, form: str, position: int) -> Any:
        if position < 0:
            raise ValueError("an offset leads out of the file")
        return struct.unpack_from(f"<{form}", self.content, position)[0]

    def _field(self, number: int) -> int | None:
        vtable = self.start - int(self._unpack("i", self.start))
        if 4 + 2 * number >= self._unpack("H", vtable):
            return None
        offset = int(self._unpack("H", vtable + 4 + 2 * number))
        return self.start + offset if offset else None

    def number(self, number: int, form: str) -> Any:
        """A number of struct's format `form`; 0 where it is absent."""
        place = self._field(number)
        return 0 if place is None else self._unpack(form, place)

    def _list(self, number: int) -> tuple[int, int]:
        """Where a list's items begin, and how many there are."""
        place = self._field(number)
        if place is None:
            return 0, 0
        start = place + int(self._unpack("I", place))
        return start + 4, int(self._unpack("I", start))

    def text(self, number: int) -> str:
        """A text, cut to 64 KiB."""
        start, count = self._list(number)
        return self.content[start : start + min(count, _MAX_TEXT)].decode("utf-8", "replace")

    def floats(self, number: int) -> tuple[float, ...]:
        """A list of numbers."""
        start, count = self._list(number)
        if count > _MAX_ITEMS:
            raise ValueError("a list is too long")
        return struct.unpack_from(f"<{count}f", self.content, start) if count else ()

    def table(self, number: int) -> Table | None:
        """A table in this one."""
        place = self._field(number)
        return None if place is None else Table(self.content, place + int(self._unpack("I", place)))

    def tables(self, number: int) -> list[Table]:
        """A list of tables."""
        start, count = self._list(number)
        if count > _MAX_ITEMS:
            raise ValueError("a list is too long")
        places = [start + 4 * index for index in range(count)]
        return [Table(self.content, place + int(self._unpack("I", place))) for place in places]


def root(content: bytes, identifier: bytes) -> Table:
    """The first table of a buffer that bears the identifier."""
    if content[4:8] != identifier:
        raise ValueError(f"bytes 4 to 8 are not {identifier!r}")
    return Table(content, struct.unpack_from("<I", content)[0])
