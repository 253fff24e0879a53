"""An .onnx file, read without the `onnx` package, which is too heavy for the daemon's machine (field numbers: onnx.proto)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgevision.graphs.graph import MAX_ITEMS, Graph, Node, Tensor
from edgevision.graphs.wire import BYTES, FIXED32, VARINT, fields, floats, integers, signed

MAX_DEPTH = 16
"""Of graphs within nodes."""
MAX_DIMENSIONS = 64
_MAX_TEXT, _MAX_LIST = 1 << 20, 100_000

# TensorProto.DataType
_TYPES = (
    *(
        "undefined",
        "float32",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "float64",
    ),
    *("uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2"),
    *("float8e5m2fnuz", "uint4", "int4", "float4e2m1"),
)


def read(content: bytes) -> Graph:
    """Read it; ValueError or IndexError where it is none."""
    reader = _Reader(memoryview(content))
    reader.model()
    main = reader.main
    if main is None:
        raise ValueError("it holds no graph")
    constants = {name for name, tensor in main.tensors.items() if tensor.constant}
    return Graph(
        format="onnx",
        inputs=tuple(tensor for tensor in main.inputs if tensor.name not in constants),
        outputs=tuple(main.outputs),
        nodes=tuple(main.nodes),
        inner=tuple(reader.inner),
        tensors=main.tensors,
        opsets=reader.opsets,
        producer=" ".join(part for part in reader.producer if part),
        metadata=reader.metadata,
        size_bytes=len(content),
    )


@dataclass(slots=True)
class _Part:
    """One GraphProto."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class _Reader:
    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._items = 0
        self.main: _Part | None = None
        self.inner: list[Node] = []
        self.opsets: dict[str, int] = {}
        self.producer = ["", ""]
        self.metadata: dict[str, str] = {}

    def model(self) -> None:
        known = False
        for number, wire, value, end in self._fields(0, len(self._content)):
            known |= (number, wire) in ((1, VARINT), (7, BYTES))
            if wire != BYTES:
                continue
            if number in (2, 3):
                self.producer[number - 2] = self._text(value, end)
            elif number == 7:
                self.main = self._graph(value, end, 0)
            elif number in (8, 14, 25):
                self._part_of_model(number, value, end)
        if not known:
            raise ValueError("nothing in it is a model's")

    def _part_of_model(self, number: int, start: int, end: int) -> None:
        """An operator set, an entry of the metadata, or a function."""
        texts = {1: "", 2: ""}
        version = 0
        for part, wire, value, stop in self._fields(start, end):
            if number == 25 and (part, wire) == (7, BYTES):
                self.inner.append(self._node(value, stop, 1))
            elif number != 25 and part in texts and wire == BYTES:
                texts[part] = self._text(value, stop)
            elif number == 8 and (part, wire) == (2, VARINT):
                version = signed(value)
        if number == 8:
            self.opsets["" if texts[1] == "ai.onnx" else texts[1]] = version
        elif number == 14:
            self.metadata[texts[1]] = texts[2]

    def _fields(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        for found in fields(self._content, start, stop):
            self._items += 1
            if self._items > 10 * MAX_ITEMS:
                raise ValueError(f"it has more than {10 * MAX_ITEMS} fields")
            yield found

    def _text(self, start: int, end: int) -> str:
        if end - start > _MAX_TEXT:
            return ""  # no name is that long, and no metadata that we read
        return bytes(self._content[start:end]).decode("utf-8", "replace")

    def _graph(self, start: int, end: int, depth: int) -> _Part:
        if depth > MAX_DEPTH:
            raise ValueError(f"graphs stand within graphs more than {MAX_DEPTH} deep")
        part = _Part()
        for number, wire, value, stop in self._fields(start, end):
            if wire != BYTES:
                continue
            if number == 1:
                part.nodes.append(self._node(value, stop, depth))
            elif number == 5:
                tensor = self._tensor(value, stop)
                part.tensors[tensor.name] = tensor
            elif number in (11, 12, 13):
                tensor = self._value(value, stop)
                if number != 13:
                    (part.inputs if number == 11 else part.outputs).append(tensor)
                part.tensors.setdefault(tensor.name, tensor)
            if len(part.nodes) + len(part.tensors) + len(self.inner) > MAX_ITEMS:
                raise ValueError(f"it has more than {MAX_ITEMS} nodes and tensors")
        return part

    def _node(self, start: int, end: int, depth: int) -> Node:
        inputs: list[str] = []
        outputs: list[str] = []
        texts = {3: "", 4: "", 7: ""}
        attributes: dict[str, Any] = {}
        for number, wire, value, stop in self._fields(start, end):
            if wire != BYTES:
                continue
            if number in (1, 2):
                (inputs if number == 1 else outputs).append(self._text(value, stop))
            elif number in texts:
                texts[number] = self._text(value, stop)
            elif number == 5:
                name, told = self._attribute(value, stop, depth)
                if told is not None:
                    attributes[name] = told
        return Node(
            op=texts[4], name=texts[3], domain="" if texts[7] == "ai.onnx" else texts[7],
            inputs=tuple(inputs), outputs=tuple(outputs), attributes=attributes,
        )  # fmt: skip

    def _attribute(self, start: int, end: int, depth: int) -> tuple[str, Any]:
        """Name and value; None for what holds no number or text, or no list of them."""
        name = ""
        found: Any = None
        many: list[Any] = []
        for number, wire, value, stop in self._fields(start, end):
            if number == 1 and wire == BYTES:
                name = self._text(value, stop)
            elif number == 2 and wire == FIXED32:
                found = floats(self._content, wire, value, stop)[0]
            elif number == 3 and wire == VARINT:
                found = signed(value)
            elif wire == BYTES and number in (4, 5):
                found = self._tensor(value, stop) if number == 5 else self._bytes(value, stop)
            elif number in (7, 8, 9):
                many += self._listed(number, wire, value, stop)
            elif number in (6, 11) and wire == BYTES:
                self.inner += self._graph(value, stop, depth + 1).nodes
        return name, (tuple(many) if many else found)

    def _listed(self, number: int, wire: int, value: int, stop: int) -> Iterable[Any]:
        """Items of an attribute's list."""
        if number == 7 and wire in (FIXED32, BYTES):
            return floats(self._content, wire, value, min(stop, value + 4 * _MAX_LIST))
        if number == 8 and wire in (VARINT, BYTES):
            return integers(self._content, wire, value, min(stop, value + _MAX_LIST) if wire == BYTES else stop)
        return [self._bytes(value, stop)] if (number, wire) == (9, BYTES) else []

    def _bytes(self, start: int, end: int) -> bytes:
        return bytes(self._content[start : min(end, start + _MAX_TEXT)])

    def _tensor(self, start: int, end: int) -> Tensor:
        name, dtype, dims = "", "undefined", list[int]()
        raw: memoryview | None = None
        for number, wire, value, stop in self._fields(start, end):
            if number == 1:
                dims += integers(
                    self._content, wire, value, stop if wire != BYTES else min(stop, value + 10 * MAX_DIMENSIONS)
                )
            elif number == 2 and wire == VARINT:
                dtype = _type(value)
            elif number == 8 and wire == BYTES:
                name = self._text(value, stop)
            elif number == 9 and wire == BYTES:
                raw = self._content[value:stop]
        if len(dims) > MAX_DIMENSIONS or any(not 0 <= size < 1 << 40 for size in dims):
            raise ValueError(f"tensor {name!r} has no sensible shape")
        return Tensor(name=name, dtype=dtype, shape=tuple(dims), content=raw, constant=True)

    def _value(self, start: int, end: int) -> Tensor:
        """A ValueInfoProto: name and type."""
        name, dtype = "", "undefined"
        shape: tuple[int, ...] | None = None
        for number, wire, value, stop in self._fields(start, end):
            if (number, wire) == (1, BYTES):
                name = self._text(value, stop)
            elif (number, wire) == (2, BYTES):
                for kind, inner_wire, inner, inner_stop in self._fields(value, stop):
                    if (kind, inner_wire) == (1, BYTES):  # a tensor; sequences and maps have no shape
                        dtype, shape = self._tensor_type(inner, inner_stop)
        return Tensor(name=name, dtype=dtype, shape=shape)

    def _tensor_type(self, start: int, end: int) -> tuple[str, tuple[int, ...] | None]:
        dtype = "undefined"
        shape: tuple[int, ...] | None = None
        for number, wire, value, stop in self._fields(start, end):
            if (number, wire) == (1, VARINT):
                dtype = _type(value)
            elif (number, wire) == (2, BYTES):
                sizes = [
                    self._size(inner, inner_stop)
                    for part, _, inner, inner_stop in self._fields(value, stop)
                    if part == 1
                ]
                if len(sizes) > MAX_DIMENSIONS:
                    raise ValueError(f"a tensor has more than {MAX_DIMENSIONS} dimensions")
                shape = tuple(sizes)
        return dtype, shape

    def _size(self, start: int, end: int) -> int:
        """A dimension; -1 where it is open."""
        for number, wire, value, _ in self._fields(start, end):
            if (number, wire) == (1, VARINT):
                size = signed(value)
                return size if size > 0 else -1
        return -1


def _type(number: int) -> str:
    return _TYPES[number] if 0 <= number < len(_TYPES) else f"type {number}"
