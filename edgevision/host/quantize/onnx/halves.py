"""The two cheap ways to a smaller ONNX file that are no integers: float16, and 8-bit weights with float arithmetic.

They stand in the frontier beside the 8-bit candidates: where integers are slower or too inexact, one of them may be what a
user wants, and where not it should be seen.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgevision import registry
from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.tail import is_weighted
from edgevision.host.quantize.onnx.weights import channel_axis, weight_scales
from edgevision.inference._specs import first_sentence


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16, its inputs and outputs still float32.

    Raises:
        ModelError: ONNX Runtime's converter cannot convert it.
    """
    converter = registry.require("onnxruntime.transformers.float16", package="edgevision[host]", purpose="float16")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of each number that is too small for float16
            made: onnx.ModelProto = converter.convert_float_to_float16(copy, keep_io_types=True)
    except (ValueError, RuntimeError, KeyError, TypeError) as failure:
        raise ModelError(f"float16: {first_sentence(failure)}") from failure
    return made


def to_int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with int8 weights, one scale for each output channel, that are made float again when it runs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    done: set[str] = set()
    restored = []
    for node in graph.node:
        if not is_weighted(node, constants) or node.input[1] in done:
            continue
        name, axis = node.input[1], channel_axis(node)
        weight = numpy_helper.to_array(constants[name])
        if weight.dtype != np.float32 or weight.ndim < 2:
            continue
        scale = weight_scales(weight, axis=axis, pair_safe=False)
        shape = [1] * weight.ndim
        shape[axis] = -1
        steps = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
        graph.initializer.remove(constants[name])
        graph.initializer.extend(
            [
                numpy_helper.from_array(steps, f"{name}_int8"),
                numpy_helper.from_array(scale, f"{name}_scale"),
                numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero_point"),
            ]
        )
        parts = [f"{name}_int8", f"{name}_scale", f"{name}_zero_point"]
        restored.append(helper.make_node("DequantizeLinear", parts, [name], f"{name}_restored", axis=axis))
        done.add(name)
    nodes = [*restored, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(copy)
    return copy
