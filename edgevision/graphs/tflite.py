"""A .tflite file, read with every offset checked; the generated classes of FlatBuffers trust them (schema: schema.fbs).

All positions are absolute, and a table is told by the position where it begins
(https://flatbuffers.dev/internals).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from edgevision.graphs._tflite_names import OPERATORS, TYPES
from edgevision.graphs.graph import MAX_ITEMS, Graph, Node, Tensor

IDENTIFIER = b"TFL3"
_CUSTOM = 32
_MAX_TEXT, _MAX_BLOB, _MAX_COPIED = 1 << 20, 1 << 20, 64 << 20
_Item = TypeVar("_Item")


def read(content: bytes) -> Graph:
    """Read it; ValueError or struct.error where it is damaged."""
    return _Reader(memoryview(content)).graph()


class _Reader:
    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._items = self._copied = 0

    def graph(self) -> Graph:
        model = self._offset(0)
        codes = self._vector(model, 1, self._operator_code)
        self._buffers = self._vector(model, 4, self._buffer)
        subgraphs = self._vector(model, 2, lambda table: table)
        if not subgraphs:
            raise ValueError("it holds no graph")
        tensors, nodes, inputs, outputs = self._subgraph(subgraphs[0], codes)
        inner = [node for table in subgraphs[1:] for node in self._subgraph(table, codes)[1]]
        blobs: dict[str, bytes] = {}
        metadata = {"description": self._text(model, 3)}
        for name, number in self._vector(model, 6, lambda table: (self._text(table, 0), self._number(table, 1, "I"))):
            blob = self._buffers[number] if number < len(self._buffers) else None
            metadata[name] = f"{len(blob) if blob is not None else 0} bytes"
            if blob is not None and len(blob) <= _MAX_BLOB:
                self._copy(len(blob))
                blobs[name] = bytes(blob)
        return Graph(
            format="tflite",
            inputs=tuple(tensors[index] for index in inputs),
            outputs=tuple(tensors[index] for index in outputs),
            nodes=tuple(nodes),
            inner=tuple(inner),
            tensors={tensor.name: tensor for tensor in tensors},
            metadata={key: value for key, value in metadata.items() if value},
            blobs=blobs,
            size_bytes=len(self._content),
        )

    def _subgraph(
        self, table: int, codes: list[tuple[str, str]]
    ) -> tuple[list[Tensor], list[Node], list[int], list[int]]:
        tensors = _named(self._vector(table, 0, self._tensor))

        def indices(where: int, field: int) -> list[int]:
            found = self._numbers(where, field, "i")
            if any(not -1 <= index < len(tensors) for index in found):
                raise ValueError("a tensor's index is not there")
            return found

        def node(where: int) -> Node:
            code = self._number(where, 0, "I")
            if code >= len(codes):
                raise ValueError("an operator's code is not there")
            op, domain = codes[code]
            names = [["" if index < 0 else tensors[index].name for index in indices(where, field)] for field in (1, 2)]
            return Node(op=op, domain=domain, inputs=tuple(names[0]), outputs=tuple(names[1]))

        nodes = self._vector(table, 3, node)
        ends = [[index for index in indices(table, field) if index >= 0] for field in (1, 2)]
        return tensors, nodes, ends[0], ends[1]

    def _operator_code(self, table: int) -> tuple[str, str]:
        number = max(self._number(table, 0, "b"), self._number(table, 3, "i"))  # the first is the older, of one byte
        if number == _CUSTOM:
            return self._text(table, 1) or "custom", "custom"
        return (OPERATORS[number] if 0 <= number < len(OPERATORS) else f"operator {number}"), ""

    def _tensor(self, table: int) -> Tensor:
        shape, signature = self._numbers(table, 0, "i"), self._numbers(table, 7, "i")
        if any(not -1 <= size < 1 << 31 for size in (*shape, *signature)):
            raise ValueError("a tensor has no sensible shape")
        kind, buffer = self._number(table, 1, "b"), self._number(table, 2, "I")
        if buffer >= max(1, len(self._buffers)):
            raise ValueError("a tensor names a buffer that is not there")
        content = self._buffers[buffer] if self._buffers else None
        quantization = self._field(table, 4)
        scales = 0 if quantization is None else len(self._numbers(quantization + self._uint(quantization), 2, "f"))
        return Tensor(
            name=self._text(table, 3),
            dtype=TYPES[kind] if 0 <= kind < len(TYPES) else f"type {kind}",
            shape=tuple(signature if len(signature) == len(shape) else shape),
            content=content,
            constant=content is not None,
            scales=scales,
        )

    def _buffer(self, table: int) -> memoryview | None:
        """A buffer's bytes: in the table, or behind all tables, at an offset from the file's beginning."""
        place = self._field(table, 0)
        start, count = (0, 0) if place is None else self._count(place, 1)
        if not count:
            start, count = self._number(table, 1, "Q"), self._number(table, 2, "Q")
            if start + count > len(self._content):
                raise ValueError("a buffer ends behind the file")
        return self._content[start : start + count] if count else None

    # FlatBuffers

    def _uint(self, position: int) -> int:
        return int(self._unpack("I", position))

    def _unpack(self, form: str, position: int) -> Any:
        if position < 0:
            raise ValueError("an offset leads out of the file")
        return struct.unpack_from(f"<{form}", self._content, position)[0]

    def _offset(self, position: int) -> int:
        return position + self._uint(position)

    def _field(self, table: int, number: int) -> int | None:
        """Where a table's field stands; None where it has its default."""
        vtable = table - self._unpack("i", table)
        if 4 + 2 * number >= self._unpack("H", vtable):
            return None
        offset = self._unpack("H", vtable + 4 + 2 * number)
        return table + offset if offset else None

    def _number(self, table: int, number: int, form: str) -> int:
        place = self._field(table, number)
        return 0 if place is None else int(self._unpack(form, place))

    def _count(self, place: int, size: int) -> tuple[int, int]:
        """Where a vector's first item stands, and how many there are."""
        start = self._offset(place)
        count = self._uint(start)
        if start + 4 + count * size > len(self._content):
            raise ValueError("a list ends behind the file")
        return start + 4, count

    def _text(self, table: int, number: int) -> str:
        place = self._field(table, number)
        if place is None:
            return ""
        start, count = self._count(place, 1)
        count = min(count, _MAX_TEXT)
        self._copy(count)
        return bytes(self._content[start : start + count]).decode("utf-8", "replace")

    def _numbers(self, table: int, number: int, form: str) -> list[Any]:
        place = self._field(table, number)
        if place is None:
            return []
        start, count = self._count(place, 4)
        self._take(count)
        return list(struct.unpack_from(f"<{count}{form}", self._content, start))

    def _vector(self, table: int, number: int, item: Callable[[int], _Item]) -> list[_Item]:
        """A list of tables."""
        place = self._field(table, number)
        if place is None:
            return []
        start, count = self._count(place, 4)
        self._take(count)
        return [item(self._offset(start + 4 * index)) for index in range(count)]

    def _copy(self, size: int) -> None:
        """Before bytes are copied: many tables may point at one long text."""
        self._copied += size
        if self._copied > _MAX_COPIED:
            raise ValueError(f"its names and metadata are more than {_MAX_COPIED >> 20} MiB")

    def _take(self, count: int) -> None:
        self._items += count
        if self._items > 10 * MAX_ITEMS:
            raise ValueError(f"it has more than {10 * MAX_ITEMS} parts")


def _named(tensors: list[Tensor]) -> list[Tensor]:
    """With a name of its own for each: some files leave names out, or give one twice."""
    seen: set[str] = set()
    named = []
    for index, tensor in enumerate(tensors):
        name = tensor.name if tensor.name and tensor.name not in seen else f"{tensor.name}#{index}"
        seen.add(name)
        named.append(
            tensor if name == tensor.name else Tensor(
                name=name, dtype=tensor.dtype, shape=tensor.shape, content=tensor.content, constant=tensor.constant,
                scales=tensor.scales,
            )
        )  # fmt: skip
    return named
