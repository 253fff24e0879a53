"""How much of a .tflite file runs on integers, which is what quantising is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.operators import CONVOLUTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerShare:
    """How much of a model runs on integers."""

    integer: int
    """Convolutions and fully connected layers with integer input, weight and output."""
    convolutions: int
    """All of them."""
    operators: Mapping[str, int]
    """Count by operator name, in the order of the schema's names."""
    float_operators: Mapping[str, int]
    """Count of the operators that read or make a float tensor, QUANTIZE and DEQUANTIZE included."""


def integer_share(content: bytes, name: str = "model") -> IntegerShare:
    """How many of a file's convolutions run on integers: read, weighed and written as INT8 or INT16.

    A convolution with 8-bit weights and float input does not count: it computes in float, or quantises as it runs.

    Raises:
        ModelError: as `Graph`.
    """
    graph = Graph(content, name)
    counts: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    integer = total = 0
    for operator in graph.operators():
        counts[operator.kind] += 1
        types = [graph.type_name(i) for i in (*operator.inputs, *operator.outputs) if i >= 0]
        if any(kind.startswith("FLOAT") for kind in types):
            floats[operator.kind] += 1
        if operator.kind in CONVOLUTIONS:
            total += 1
            parts = {graph.type_name(i) for i in (operator.data, operator.weight, operator.outputs[0])}
            integer += parts <= {"INT8", "UINT8", "INT16", "INT4"}
    return IntegerShare(
        integer=integer,
        convolutions=total,
        operators=dict(sorted(counts.items())),
        float_operators=dict(sorted(floats.items())),
    )
