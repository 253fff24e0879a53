"""The Protocol Buffers wire format (https://protobuf.dev/programming-guides/encoding), as far as ONNX needs it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(content: bytes | memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, value (of bytes: where they start) and end of every field of a message.

    Raises:
        ValueError: it is no such message.
        IndexError: it ends too early.
    """
    position = start
    while position < stop:
        key, position = varint(content, position)
        field, wire = key >> 3, key & 7
        value = position
        if wire == VARINT:
            value, position = varint(content, position)
        elif wire == BYTES:
            length, value = varint(content, position)
            position = value + length
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position > stop:
            raise ValueError("a field ends behind its message")
        yield field, wire, value, position


def varint(content: bytes | memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a number of more than ten bytes")


def signed(number: int) -> int:
    """A varint as the int64 that it stands for."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def integers(content: bytes | memoryview, wire: int, value: int, end: int) -> Iterator[int]:
    """A repeated int64: one number, or many packed into bytes."""
    if wire == VARINT:
        yield signed(value)
        return
    while value < end:
        number, value = varint(content, value)
        yield signed(number)


def floats(content: bytes | memoryview, wire: int, value: int, end: int) -> tuple[float, ...]:
    """A repeated float: one number, or many packed into bytes."""
    count = 1 if wire == FIXED32 else (end - value) // 4
    return struct.unpack_from(f"<{count}f", content, value)
