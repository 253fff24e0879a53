"""Which reader a file is for, by what it begins with and not by its name."""

from __future__ import annotations

import struct

from edgevision.errors import ModelError
from edgevision.graphs import ir, onnx, tflite
from edgevision.graphs.graph import Graph


def read(content: bytes, name: str) -> Graph:
    """Read a model file.

    Args:
        content: the file.
        name: for messages.

    Raises:
        ModelError: it is no .onnx, .tflite or OpenVINO IR file, or is truncated, damaged or without bounds.
    """
    kind, reader = ".onnx", onnx.read
    if content[4:8] == tflite.IDENTIFIER:
        kind, reader = ".tflite", tflite.read
    elif ir.is_ir(content):
        kind, reader = "OpenVINO IR", ir.read
    try:
        return reader(content)
    except (ValueError, IndexError, struct.error, OverflowError) as failure:
        what = "no whole" if kind == ".onnx" else "a damaged"
        raise ModelError(f"{name}: is {what} {kind} file: {failure}; export or copy it again") from failure
