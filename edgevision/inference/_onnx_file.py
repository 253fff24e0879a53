"""Whether an ONNX model keeps weights in a second file: the one thing we must know before ONNX Runtime reads the first.

Given a model as bytes, ONNX Runtime looks for such a file in the working directory and takes whatever lies there,
unchecked. Older versions (1.18 to 1.20 were tried) cannot be told not to. So the Protocol Buffers wire format is walked
here, just as far as the tensors (onnx.proto); the `onnx` package is too heavy for the daemon.
"""

from __future__ import annotations

from edgevision.errors import ModelError
from edgevision.graphs.wire import BYTES, fields

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


MAX_FIELDS = 1_000_000
"""Fields that are looked at: 2 s. A network of 40,000 nodes has fewer; a hostile file of 10 MB can have millions."""


def has_external_data(content: bytes, name: str) -> bool:
    """True where any tensor names a second file; False also for what is no ONNX file, which the runtime will refuse.

    Raises:
        ModelError: the file holds more parts than any model; `name` is for the message.
    """
    # One iterator a level, so that a million empty nodes need no more memory than one.
    open_messages = [("Model", fields(content, 0, len(content)))]
    left = MAX_FIELDS
    try:
        while open_messages:
            kind, parts = open_messages[-1]
            for field, wire, value, end in parts:
                left -= 1
                if left < 0:
                    raise ModelError(f"model {name!r}: holds more than {MAX_FIELDS} parts, which is the limit")
                if kind == "Tensor":
                    if (field == _EXTERNAL_DATA and wire == BYTES) or (field == _DATA_LOCATION and value == 1):
                        return True
                elif wire == BYTES and field in _FIELDS[kind]:
                    open_messages.append((_FIELDS[kind][field], fields(content, value, end)))
                    break
            else:
                open_messages.pop()
    except (IndexError, ValueError):
        return False
    return False
