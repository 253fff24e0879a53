"""A JSON file of lists read entry by entry, so that a fault in one of a million labels can name its line.

The standard library's decoder does the work within an entry; only the way from one entry to the next is here.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from edgevision.host.dataset._collect import Place

_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object of a list and where it begins."""

    value: dict[str, Any]
    offset: int


class EntryText:
    """A JSON text taken apart one entry at a time, so that each keeps its offset."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._decoder = json.JSONDecoder()
        self._line_ends: list[int] | None = None

    def at(self, offset: int, what: str = "") -> Callable[[], Place]:
        """The place of an entry; its line is looked for only when a fault asks."""
        return lambda: self._place(offset, what)

    def _place(self, offset: int, what: str) -> Place:
        if self._line_ends is None:
            self._line_ends = [match.start() for match in re.finditer("\n", self._text)]
        return Place(file=self._file, line=bisect_left(self._line_ends, offset) + 1, what=what)

    def lists(self, names: Collection[str]) -> dict[str, list[Entry]]:
        """The entries of those lists of an object; raises ValueError or RecursionError where the text is not such JSON."""
        found: dict[str, list[Entry]] = {}
        position = self._expect("{", 0)
        while self._text[position : position + 1] != "}":
            key, position = self._decoder.raw_decode(self._text, position)
            position = self._expect(":", self._skip(position))
            if key in names:
                if key in found:
                    raise json.JSONDecodeError(f"{key!r} stands twice", self._text, position)
                found[key] = []
                position = self._entries(position, found[key])
            else:
                _, position = self._decoder.raw_decode(self._text, position)
            position = self._skip(position)
            if self._text[position : position + 1] == ",":
                position = self._skip(position + 1)
            elif self._text[position : position + 1] != "}":
                raise json.JSONDecodeError("Expecting ',' delimiter", self._text, position)
        return found

    def _entries(self, position: int, entries: list[Entry]) -> int:
        position = self._expect("[", position)
        while self._text[position : position + 1] != "]":
            start = position
            value, position = self._decoder.raw_decode(self._text, position)
            if not isinstance(value, dict):
                raise json.JSONDecodeError("each entry must be an object", self._text, start)
            entries.append(Entry(value=value, offset=start))
            position = self._skip(position)
            if self._text[position : position + 1] == ",":
                position = self._skip(position + 1)
            elif self._text[position : position + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' delimiter", self._text, position)
        return position + 1

    def _expect(self, char: str, position: int) -> int:
        position = self._skip(position)
        if self._text[position : position + 1] != char:
            raise json.JSONDecodeError(f"Expecting {char!r}", self._text, position)
        return self._skip(position + 1)

    def _skip(self, position: int) -> int:
        match = _SPACE.match(self._text, position)
        return match.end() if match else position
