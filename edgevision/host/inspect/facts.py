"""What stands in a model file: ends, operators, size, parameters, quantisation, multiply-adds. No runtime is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgevision.graphs import Graph, Node, Tensor
from edgevision.inference._ort_session import is_quantised

INTEGERS = frozenset({"int4", "uint4", "int8", "uint8", "int16"})
WEIGHTED = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"),
        *("FusedConv", "Convolution", "GroupConvolution", "ConvolutionBackpropData"),
        *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"),
    }
)
"""Operators in which a network spends its time, in ONNX, OpenVINO and TensorFlow Lite."""
_NMS = {"NonMaxSuppression", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "TFLite_Detection_PostProcess",
        "BatchedNMS_TRT", "EfficientNMS_TRT", "NMSRotated"}  # fmt: skip


def facts(graph: Graph) -> dict[str, Any]:
    """Everything, as JSON."""
    weights = _weights(graph)
    return {
        "format": graph.format,
        "size_bytes": graph.size_bytes,
        "producer": graph.producer,
        "opsets": {name or "ai.onnx": version for name, version in graph.opsets.items()},
        "inputs": [_end(tensor) for tensor in graph.inputs],
        "outputs": [_end(tensor) for tensor in graph.outputs],
        "nodes": len(graph.nodes) + len(graph.inner),
        "operators": dict(graph.operators.most_common()),
        "parameters": graph.parameters,
        "quantisation": quantisation(graph),
        "weight_types": weights,
        "multiply_adds": multiply_adds(graph),
        "open_sizes": any(-1 in (tensor.shape or (-1,))[1:] for tensor in graph.inputs),
        "nms": sorted(_NMS & graph.operators.keys()),
        "metadata": dict(graph.metadata),
    }


def _end(tensor: Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else list(tensor.shape)
    return {"name": tensor.name, "shape": shape, "dtype": tensor.dtype, "quantised": tensor.scales > 0}


def _weights(graph: Graph) -> dict[str, int]:
    """How many numbers of the constants are of which type."""
    counts: dict[str, int] = {}
    for tensor in graph.tensors.values():
        if tensor.constant and tensor.elements > 1:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.elements
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def quantisation(graph: Graph) -> str:
    """`float`, `float16 weights`, `integer weights`, `QDQ`, `QOperator` or `integer`."""
    found = {"openvino": _of_ir, "tflite": _of_tflite, "onnx": _of_onnx}[graph.format](graph)
    if found:
        return found
    largest = max(_weights(graph).items(), key=lambda item: item[1], default=("float32", 0))[0]
    return "float16 weights" if largest == "float16" else "float"


def _of_ir(graph: Graph) -> str:
    if graph.operators["FakeQuantize"]:
        return "integer"
    weights = _weights(graph)
    integers = sum(count for kind, count in weights.items() if kind in INTEGERS)
    return "integer weights" if integers > sum(weights.values()) / 2 else ""


def _of_tflite(graph: Graph) -> str:
    weighted = [node for node in graph.nodes if node.op in WEIGHTED and len(node.inputs) > 1]
    types = [tuple(_dtype(graph, name) for name in node.inputs[:2]) for node in weighted]
    if types and sum(data in INTEGERS and weight in INTEGERS for data, weight in types) > len(types) / 2:
        return "integer"
    return "integer weights" if any(weight in INTEGERS for _, weight in types) else ""


def _of_onnx(graph: Graph) -> str:
    if any(op.startswith("QLinear") or op.endswith("Integer") for op in graph.operators):
        return "QOperator"
    if graph.operators["QuantizeLinear"]:
        return "QDQ"
    return "integer weights" if any(is_quantised(op) for op in graph.operators) else ""


def _dtype(graph: Graph, name: str) -> str:
    tensor = graph.tensors.get(name)
    return tensor.dtype if tensor is not None else ""


def multiply_adds(graph: Graph, shapes: Mapping[str, tuple[int, ...]] | None = None) -> int | None:
    """Multiply-adds of one inference; None where the file leaves the shapes of some weighted operators open.

    Args:
        graph: the file.
        shapes: of tensors that the file does not tell, as a runtime found them.
    """
    known = {name: tensor.shape for name, tensor in graph.tensors.items() if tensor.shape is not None}
    known |= shapes or {}
    total = 0
    for node in graph.nodes:
        if node.op in WEIGHTED:
            one = _of_node(node, known)
            if one is None:
                return None
            total += one
    return total


def _of_node(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Numbers that come out (or go in, where it is transposed), times what each is the sum of."""
    place = {"QLinearConv": 3, "QLinearMatMul": 3}.get(node.op, 1)
    data_place = 2 if node.op == "TRANSPOSE_CONV" else 0
    if len(node.inputs) <= max(place, data_place) or not node.outputs:
        return None
    data, weight = shapes.get(node.inputs[data_place]), shapes.get(node.inputs[place])
    out = shapes.get(node.outputs[0])
    if (
        data is None
        or weight is None
        or out is None
        or not weight
        or not data
        or any(size < 0 for size in (*data, *out))
    ):
        return None
    return multiply_adds_of(node.op, data, weight, out)


def multiply_adds_of(op: str, data: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...]) -> int:
    """Of one operator, by the shapes of what it reads, its weights and what it makes."""
    if op == "GroupConvolution":
        return _count(out) * _count(weight[2:])  # (groups, out / groups, in / groups, kh, kw)
    if op in {"ConvTranspose", "TRANSPOSE_CONV", "ConvolutionBackpropData"}:
        # Each number that goes in is multiplied with one filter: (in, out / groups, kh, kw), or TFLite's (out, kh, kw, in).
        return _count(data) * (_count(weight) // (weight[-1] if op == "TRANSPOSE_CONV" else weight[0]))
    if op == "DEPTHWISE_CONV_2D":
        return _count(out) * _count(weight[1:3])  # (1, kh, kw, channels)
    if op in {"Gemm", "MatMul", "QLinearMatMul", "MatMulInteger", "BATCH_MATMUL"}:
        return _count(out) * data[-1]
    return _count(out) * _count(weight[1:])  # (out, in / groups, kh, kw), TFLite (out, kh, kw, in)


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
