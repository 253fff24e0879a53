"""Keeps ONNX Runtime from quantising what was left in float: a layer between two quantisers is made 8-bit behind one's back.

ONNX Runtime (1.20 and later, `weight_bias_quantization.cc`) takes a convolution or matrix product with float weights whose
input is dequantised and whose result, through nothing but Relu or Clip, is quantised, for one that somebody forgot. It gives
the weights one scale for the whole tensor and all eight bits. That is the accuracy for which the layer was spared, and on x86
without VNNI, where such weights saturate, more: EfficientNet-Lite0 fell from 0.874 to 0.826 top-1.

A leaky rectifier that leaks all of it changes no number, is no step that the optimiser looks through, and is fused into the
layer before it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_SEEN_THROUGH = frozenset({"Relu", "Clip"})


def fence(model: onnx.ModelProto) -> onnx.ModelProto:
    """Part each layer that stays float from the quantiser behind it.

    Args:
        model: with quantisers; not changed.

    Returns:
        A model that gives the same numbers; the one that was given where there is nothing to part.
    """
    layers = {node.name: node.output[0] for node in _at_risk(model)}
    if not layers:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = []
    for node in made.graph.node:
        nodes.append(node)
        if node.name in layers:
            result = node.output[0]
            node.output[0] = f"{result}_float"
            nodes.append(
                helper.make_node("LeakyRelu", [node.output[0]], [result], f"{node.name}_stays_float", alpha=1.0)
            )
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def _at_risk(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Layers with float weights between two quantisers."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    for node in model.graph.node:
        if node.op_type in _LAYERS and node.input[1] in constants:
            source = made_by.get(node.input[0])
            if source is not None and source.op_type == "DequantizeLinear" and _is_quantised(node, readers):
                yield node


def _is_quantised(node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> bool:
    """Whether a layer's result goes to one quantiser, through nothing or what the optimiser looks through."""
    while True:
        after = readers.get(node.output[0], [])
        if len(after) != 1:
            return False
        node = after[0]
        if node.op_type == "QuantizeLinear":
            return True
        if node.op_type not in _SEEN_THROUGH:
            return False
