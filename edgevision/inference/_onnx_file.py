"""Whether an ONNX model keeps weights in a second file: the one thing we must know before ONNX Runtime reads the first.

Given a model as bytes, ONNX Runtime looks for such a file in the working directory and takes whatever lies there,
unchecked. Older versions (1.18 to 1.20 were tried) cannot be told not to. So the Protocol Buffers wire format is walked
here, just as far as the tensors (https://protobuf.dev/programming-guides/encoding and onnx.proto); the `onnx` package
is too heavy for the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgevision.errors import ModelError

# Message type -> field number -> type of the message in that field. Only what leads to tensors.
_FIELDS = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


MAX_FIELDS = 1_000_000
"""Fields that are looked at: 2 s. A network of 40,000 nodes has fewer; a hostile file of 10 MB can have millions."""


def has_external_data(content: bytes, name: str) -> bool:
    """True where any tensor names a second file; False also for what is no ONNX file, which the runtime will refuse.

    Raises:
        ModelError: the file holds more parts than any model; `name` is for the message.
    """
    # One iterator a level, so that a million empty nodes need no more memory than one.
    open_messages = [("Model", _fields(content, 0, len(content)))]
    left = MAX_FIELDS
    try:
        while open_messages:
            kind, fields = open_messages[-1]
            for field, wire, value, end in fields:
                left -= 1
                if left < 0:
                    raise ModelError(f"model {name!r}: holds more than {MAX_FIELDS} parts, which is the limit")
                if kind == "Tensor":
                    if (field == _EXTERNAL_DATA and wire == _BYTES) or (field == _DATA_LOCATION and value == 1):
                        return True
                elif wire == _BYTES and field in _FIELDS[kind]:
                    open_messages.append((_FIELDS[kind][field], _fields(content, value, end)))
                    break
            else:
                open_messages.pop()
    except (IndexError, ValueError):
        return False
    return False


def _fields(content: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, value (of bytes: where they start) and end of every field of a message."""
    position = start
    while position < stop:
        key, position = _varint(content, position)
        field, wire = key >> 3, key & 7
        value = position
        if wire == _VARINT:
            value, position = _varint(content, position)
        elif wire == _BYTES:
            length, value = _varint(content, position)
            position = value + length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position > stop:
            raise ValueError("a field ends behind its message")
        yield field, wire, value, position


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a number of more than ten bytes")
