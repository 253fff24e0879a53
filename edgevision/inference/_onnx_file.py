"""Whether an ONNX model keeps weights in a second file: the one thing we must know before ONNX Runtime reads the first.

Given a model as bytes, ONNX Runtime looks for such a file in the working directory and takes whatever lies there,
unchecked. Older versions (1.18 to 1.20 were tried) cannot be told not to. So the Protocol Buffers wire format is walked
here, just as far as the tensors (onnx.proto); the `onnx` package is too heavy for the daemon.
"""

from __future__ import annotations

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


def has_external_data(content: bytes) -> bool:
    """True where any tensor names a second file; False also for what is no ONNX file, which the runtime will refuse."""
    pending = [("Model", 0, len(content))]
    try:
        while pending:
            kind, start, stop = pending.pop()
            for field, wire, value, end in fields(content, start, stop):
                if kind == "Tensor":
                    if (field == _EXTERNAL_DATA and wire == BYTES) or (field == _DATA_LOCATION and value == 1):
                        return True
                elif wire == BYTES and field in _FIELDS[kind]:
                    pending.append((_FIELDS[kind][field], value, end))
    except (IndexError, ValueError):
        return False
    return False
