"""OpenVINO's own format (IR): a graph in XML with its weights in a second file; here as one, so that one digest proves both.

`join` puts them together with a NUL byte between, which no XML holds: what stands in a model folder as `name.ir`. The reader
takes no document type, so no entity can blow a small file up (format: https://docs.openvino.ai, "OpenVINO IR format").
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from edgevision.errors import ModelError
from edgevision.graphs.graph import MAX_ITEMS, Graph, Node, Tensor

SUFFIX, XML_SUFFIX = ".ir", ".xml"
MAX_XML_BYTES = 64 << 20
_BETWEEN = b"\0"
_TYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "boolean": "bool", "bool": "bool",
    "fp64": "float64", "fp32": "float32", "fp16": "float16",
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("i", "int"), ("u", "uint")) for bits in (4, 8, 16, 32, 64)},
}  # fmt: skip


def is_ir(content: bytes) -> bool:
    """Whether a file is XML, and so no other kind of model."""
    return content[:64].lstrip()[:1] == b"<"


def join(xml: bytes, weights: bytes) -> bytes:
    """Both files as one; ValueError where the XML is none."""
    if not is_ir(xml) or _BETWEEN in xml:
        raise ValueError("it is no XML")
    return xml + _BETWEEN + weights


def split(content: bytes) -> tuple[bytes, bytes | None]:
    """The XML and the weights; None where there are none behind it."""
    xml, between, weights = content.partition(_BETWEEN)
    return xml, weights if between else None


def weights_file(xml_file: Path) -> Path:
    """Where the weights of an .xml file lie: beside it."""
    return xml_file.with_suffix(".bin")


def read(content: bytes) -> Graph:
    """Read it; ValueError where it is damaged."""
    xml, weights = split(content)
    if len(xml) > MAX_XML_BYTES:
        raise ValueError(f"its XML is larger than {MAX_XML_BYTES >> 20} MiB")
    if b"<!" in xml.replace(b"<!--", b""):
        raise ValueError("it has a document type, which no IR has")
    try:
        root = ET.fromstring(xml)  # noqa: S314  without a document type there are no entities
    except ET.ParseError as failure:
        raise ValueError(f"its XML is broken: {failure}") from failure
    if root.tag != "net":
        raise ValueError(f"its XML holds <{root.tag}> and no <net>")
    return _Reader(root, memoryview(weights or b""), len(content)).graph()


class _Reader:
    def __init__(self, root: ET.Element, weights: memoryview, size_bytes: int) -> None:
        self._layers = {layer.get("id", ""): layer for layer in root.iterfind("./layers/layer")}
        self._edges = {
            (edge.get("to-layer", ""), edge.get("to-port", "")): (edge.get("from-layer", ""), edge.get("from-port", ""))
            for edge in root.iterfind("./edges/edge")
        }
        if not self._layers or len(self._layers) + len(self._edges) > MAX_ITEMS:
            raise ValueError(f"it has no layers, or more than {MAX_ITEMS}")
        self._weights, self._size_bytes = weights, size_bytes
        self._version = root.get("version", "")
        self._tensors: dict[str, Tensor] = {}

    def graph(self) -> Graph:
        nodes, inputs, results = [], [], []
        for key, layer in self._layers.items():
            kind = layer.get("type", "")
            made = tuple(self._output(key, port) for port in layer.iterfind("./output/port"))
            if kind == "Parameter":
                inputs += [self._tensors[name] for name in made]
            elif kind == "Const":
                for name in made:
                    self._tensors[name] = self._constant(layer, name)
            elif kind == "Result":
                results.append(key)
            else:
                nodes.append((key, layer, kind, made))
        return Graph(
            format="openvino",
            inputs=tuple(inputs),
            outputs=tuple(self._tensors[name] for key in results for name in self._given(key) if name in self._tensors),
            nodes=tuple(
                Node(op=kind, name=layer.get("name", ""), inputs=self._given(key), outputs=made)
                for key, layer, kind, made in nodes
            ),
            tensors=self._tensors,
            producer=f"OpenVINO IR {self._version}",
            size_bytes=self._size_bytes,
        )

    def _name(self, layer: str, port: str) -> str:
        element = self._layers.get(layer)
        own = element.get("name", layer) if element is not None else layer
        count = 0 if element is None else len(element.findall("./output/port"))
        return own if count <= 1 else f"{own}.{port}"

    def _output(self, layer: str, port: ET.Element) -> str:
        name = self._name(layer, port.get("id", ""))
        shape = tuple(_whole(dim.text) for dim in port.iterfind("dim"))
        self._tensors[name] = Tensor(name=name, dtype=_type(port.get("precision", "")), shape=shape)
        return name

    def _given(self, layer: str) -> tuple[str, ...]:
        ports = self._layers[layer].iterfind("./input/port")
        return tuple(self._name(*self._edges.get((layer, port.get("id", "")), ("", ""))) for port in ports)

    def _constant(self, layer: ET.Element, name: str) -> Tensor:
        data = layer.find("data")
        told = {} if data is None else data.attrib
        start, size = _whole(told.get("offset")), _whole(told.get("size"))
        if start < 0 or size < 0 or start + size > len(self._weights):
            raise ValueError(f"the weights of {name!r} lie behind the file; are they those of this XML?")
        shape = tuple(_whole(part) for part in told.get("shape", "").split(",") if part.strip())
        content = self._weights[start : start + size]
        return Tensor(name=name, dtype=_type(told.get("element_type", "")), shape=shape, content=content, constant=True)


def _whole(text: str | None) -> int:
    """A size; -1 where it is open (`?`, or a range)."""
    text = (text or "").strip()
    number = int(text) if text.lstrip("-").isdecimal() else -1
    if number >= 1 << 40:
        raise ValueError("a tensor has no sensible shape")
    return max(-1, number)


def _type(text: str) -> str:
    return _TYPES.get(text.lower(), text.lower() or "undefined")


def read_files(xml_file: Path, limit_bytes: int) -> bytes:
    """An .xml file and its .bin as one.

    Raises:
        ModelError: one of them is not there, cannot be read, or is larger than a model can be.
    """
    parts = []
    for file in (xml_file, weights_file(xml_file)):
        try:
            if file.stat().st_size > limit_bytes:
                raise ModelError(f"{file}: is larger than {limit_bytes} bytes, which is the limit")
            parts.append(file.read_bytes())
        except OSError as failure:
            of = "" if file == xml_file else f" (the weights of {xml_file.name}, which must lie beside it)"
            raise ModelError(f"{file}: cannot be read: {failure.strerror or failure}{of}") from failure
    try:
        return join(parts[0], parts[1])
    except ValueError as failure:
        raise ModelError(f"{xml_file}: {failure}; give OpenVINO's .xml, with its .bin beside it") from failure
