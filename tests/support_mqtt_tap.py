"""What a broker has really acknowledged, read off the wire: so that a message's loss can be laid at the right door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

CONNECT, PUBLISH, PUBACK = 1, 3, 4
MAX_PACKET_BYTES = 64 * 2**20

Key = tuple[str, str, int]
"""Topic, boot_id, seq."""


def read_varint(content: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """A variable byte integer (MQTT 5.0, 1.5.5) and where it ends; None where it is not all there."""
    value = 0
    for place in range(4):
        if at + place >= len(content):
            return None
        byte = content[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, at + place + 1
    raise ValueError("no variable byte integer")


@dataclass(slots=True)
class _Line:
    """One connection."""

    buffers: dict[str, bytearray] = field(default_factory=lambda: {"up": bytearray(), "down": bytearray()})
    five: bool = False
    waiting: dict[int, Key] = field(default_factory=dict)
    """By packet identifier."""
    broken: bool = False


class Tap:
    """Told of every byte that a proxy passed on; knows what was published and what was acknowledged."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self.acknowledged: set[Key] = set()
        self.published = 0
        """Durable publications on the wire, those that were sent again included."""
        self._lines: dict[int, _Line] = {}

    def __call__(self, number: int, way: str, piece: bytes) -> None:
        """Take bytes of connection `number`."""
        line = self._lines.setdefault(number, _Line())
        if line.broken:
            return
        buffer = line.buffers[way]
        buffer += piece
        try:
            for first, body in _packets(buffer):
                self._packet(line, first, body)
        except (ValueError, IndexError, KeyError):
            line.broken = True  # nobody can tell any more: nothing of it counts as acknowledged

    def _packet(self, line: _Line, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == CONNECT:
            name = int.from_bytes(body[:2], "big")
            line.five = body[2 + name] == 5
        elif kind == PUBLISH and first & 0b110:
            self._publish(line, body)
        elif kind == PUBACK:
            key = line.waiting.pop(int.from_bytes(body[:2], "big"), None)
            refused = len(body) > 2 and body[2] >= 0x80
            if key is not None and not refused:
                self.acknowledged.add(key)

    def _publish(self, line: _Line, body: bytes) -> None:
        length = int.from_bytes(body[:2], "big")
        topic = body[2 : 2 + length].decode()
        at = 2 + length
        identifier = int.from_bytes(body[at : at + 2], "big")
        at += 2
        if line.five:
            found = read_varint(body, at)
            if found is None:
                raise ValueError("no properties")
            properties, at = found
            at += properties
        content = json.loads(body[at:])
        self.published += 1
        line.waiting[identifier] = (topic, content["boot_id"], content["seq"])


def _packets(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take the whole packets out of a buffer: first byte and body."""
    while len(buffer) >= 2:
        found = read_varint(buffer, 1)
        if found is None:
            return
        length, at = found
        if length > MAX_PACKET_BYTES:
            raise ValueError("longer than anything that we send")
        if len(buffer) < at + length:
            return
        body = bytes(buffer[at : at + length])
        first = buffer[0]
        del buffer[: at + length]
        yield first, body
