"""The 8-bit network as files: ONNX written node by node, TFLite through litert-torch and litert-quantizer.

The ONNX graph is written here and not exported, because ONNX Runtime only turns a step into an integer kernel
where the quantise/dequantise nodes stand exactly as it expects them (scales without dimensions, a pair around
Flatten too, no Clip left over), and because padding, names and rounding then stay ours. The numbers are
`recipe.py`'s work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import litert_torch
import numpy as np
import onnx
import torch
from ai_edge_litert.tools import flatbuffer_utils
from litert_quantizer import quantizer
from litert_quantizer import recipe as litert_recipes
from litert_quantizer.utils import tfl_flatbuffer_utils
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from recipe import Layer, QuantizedWeight, Range, compute

OPSET: Final = 17
"""ONNX Runtime 1.18 and later load it; per-channel scales need 13."""
IR_VERSION: Final = 8
TFLITE_OPERATORS: Final = {"conv": (3, 4), "add": (0,), "mean": (40,), "linear": (9,)}
"""TFLite's operator codes by kind of layer: CONV_2D or DEPTHWISE_CONV_2D, ADD, MEAN, FULLY_CONNECTED."""


class _Graph:
    """Collects nodes and constants of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.real: dict[str, str] = {}
        """Where a layer's dequantised result is found, by layer name."""

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def parameters(self, name: str, within: Range) -> list[str]:
        """A tensor's scale and zero point; of no dimensions, or ONNX Runtime leaves Add and Gemm in float."""
        return [
            self.constant(f"{name}_scale", np.array(within.scale, np.float32)),
            self.constant(f"{name}_zero_point", np.array(within.zero_point, np.uint8)),
        ]

    def round(self, name: str, source: str, within: Range) -> None:
        """Quantise and dequantise: `source` is rounded to the steps of its range."""
        parameters = self.parameters(name, within)
        steps = self.node("QuantizeLinear", [source, *parameters], f"{name}_quantized")
        self.real[name] = self.node("DequantizeLinear", [steps, *parameters], f"{name}_real")

    def per_channel(self, name: str, steps: NDArray[Any], scale: NDArray[np.float32]) -> str:
        """A weight or bias held as integers, dequantised along its first axis."""
        parts = [
            self.constant(f"{name}_quantized", steps),
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero_point", np.zeros(len(scale), steps.dtype)),
        ]
        return self.node("DequantizeLinear", parts, name, axis=0)


def write_onnx(
    path: Path,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    ranges: Mapping[str, Range],
    metadata: Mapping[str, str],
) -> None:
    """Writes the 8-bit ONNX file: `input` uint8 (1, 224, 224, 3) RGB pixels -> `logits` float32 (1, 1000).

    The transpose to NCHW costs nothing: ONNX Runtime's integer convolutions want NHWC, and its optimiser
    cancels the two.

    Args:
        path: Where to.
        layers: The network with corrected biases.
        weights: Its rounded weights by layer name.
        ranges: Its activation ranges by tensor name.
        metadata: Kept in the file as it is.
    """
    graph = _Graph()
    planar = graph.node("Transpose", ["input"], "input_nchw", perm=[0, 3, 1, 2])
    graph.real["input"] = graph.node(
        "DequantizeLinear", [planar, *graph.parameters("input", ranges["input"])], "input_real"
    )
    for layer in layers:
        inputs = [graph.real[name] for name in layer.inputs]
        if layer.bias is not None:
            weight = weights[layer.name]
            # An integer kernel adds the bias to sums of products: its step is the product of both steps.
            scale = (weight.scale.double() * ranges[layer.inputs[0]].scale).numpy().astype(np.float32)
            steps = np.rint(layer.bias.double().numpy() / scale.astype(np.float64))
            if np.abs(steps).max() >= 2**31:
                raise ValueError(f"{layer.name}: a bias of {np.abs(steps).max():.3g} steps does not fit int32")
            kernel = weight.steps.to(torch.int8).numpy()
            inputs += [
                graph.per_channel(f"{layer.name}_weight", kernel, weight.scale.numpy()),
                graph.per_channel(f"{layer.name}_bias", steps.astype(np.int32), scale),
            ]
        if layer.kind == "conv":
            left, right, top, bottom = layer.padding
            pads, strides = [top, left, bottom, right], [layer.stride] * 2
            graph.node("Conv", inputs, layer.name, strides=strides, pads=pads, group=layer.groups)
        elif layer.kind == "add":
            graph.node("Add", inputs, layer.name)
        elif layer.kind == "mean":
            graph.node("GlobalAveragePool", inputs, f"{layer.name}_nchw")
            graph.round(f"{layer.name}_nchw", f"{layer.name}_nchw", ranges[layer.name])
            graph.node("Flatten", [graph.real[f"{layer.name}_nchw"]], layer.name)
        else:
            # The logits stay in float: top-k and softmax need no steps, and the kernel has the sums anyway.
            graph.node("Gemm", inputs, layer.name, transB=1)
            continue
        # No Clip for ReLU6: the range ends at 0 and at most 6, so rounding to it clips.
        graph.round(layer.name, layer.name, ranges[layer.name])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet-lite0",
            [helper.make_tensor_value_info("input", TensorProto.UINT8, [1, 224, 224, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])],
            graph.constants,
        ),
        producer_name="edgevision",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def write_float_onnx(path: Path, layers: Sequence[Layer]) -> None:
    """Writes the float network to measure against: `input` float32 (1, 3, 224, 224) -> `logits` (1, 1000)."""
    graph = _Graph()
    graph.real["input"] = "input"
    limits = [graph.constant("zero", np.array(0, np.float32)), graph.constant("six", np.array(6, np.float32))]
    for layer in layers:
        inputs = [graph.real[name] for name in layer.inputs]
        output = f"{layer.name}_linear" if layer.relu6 else layer.name
        if layer.weight is not None and layer.bias is not None:
            inputs += [
                graph.constant(f"{layer.name}_weight", layer.weight.numpy()),
                graph.constant(f"{layer.name}_bias", layer.bias.numpy()),
            ]
        if layer.kind == "conv":
            left, right, top, bottom = layer.padding
            pads, strides = [top, left, bottom, right], [layer.stride] * 2
            graph.node("Conv", inputs, output, strides=strides, pads=pads, group=layer.groups)
        elif layer.kind == "add":
            graph.node("Add", inputs, output)
        elif layer.kind == "mean":
            graph.node("Flatten", [graph.node("GlobalAveragePool", inputs, f"{output}_nchw")], output)
        else:
            graph.node("Gemm", inputs, output, transB=1)
        graph.real[layer.name] = graph.node("Clip", [output, *limits], layer.name) if layer.relu6 else output
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet-lite0-float",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class _Network(torch.nn.Module):
    """The layers as a module that torch can trace: (1, 224, 224, 3) real values -> (1, 1000) logits."""

    def __init__(self, layers: Sequence[Layer], weights: Mapping[str, torch.Tensor] = MappingProxyType({})) -> None:
        """`weights` by layer name stand in for the layers' own."""
        super().__init__()
        self._layers = layers
        self._weights = weights

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tensors = {"input": pixels.permute(0, 3, 1, 2)}
        for layer in self._layers:
            made = compute(layer, [tensors[name] for name in layer.inputs], self._weights.get(layer.name))
            tensors[layer.name] = torch.nn.functional.relu6(made) if layer.relu6 else made
        return tensors[self._layers[-1].name]


def _is_operator(code: int, kind: str) -> bool:
    """Whether a TFLite operator is what a layer of this kind becomes."""
    return code in TFLITE_OPERATORS[kind]


def _float_tflite(path: Path, layers: Sequence[Layer], network: _Network) -> Any:
    """The network as TFLite's own tree of objects, one operator a layer, named as the layers are.

    Raises:
        ValueError: litert-torch no longer makes one operator of each layer, so tensors cannot be told apart.
    """
    scratch = path.with_suffix(".float")
    litert_torch.convert(network.eval(), (torch.zeros(1, 224, 224, 3),)).export(str(scratch))
    model = tfl_flatbuffer_utils.read_model(str(scratch))
    scratch.unlink()
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    codes = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    kinds = [layer.kind for layer in layers]
    if len(codes) != len(kinds) or not all(map(_is_operator, codes, kinds)):
        raise ValueError(f"litert-torch made operators {codes} of layers {kinds}; want one each, in order")
    for i, tensor in enumerate(graph.tensors):
        tensor.name = f"constant_{i}".encode()
    graph.tensors[graph.inputs[0]].name = signature.inputs[0].name = b"input"
    for operator, layer in zip(graph.operators, layers, strict=True):
        graph.tensors[operator.outputs[0]].name = layer.name.encode()
    signature.outputs[0].name = layers[-1].name.encode()
    return model


def write_float_tflite(path: Path, layers: Sequence[Layer]) -> None:
    """Writes the float network: `input` float32 (1, 224, 224, 3) -> `logits` (1, 1000); raises ValueError as above."""
    model = _float_tflite(path, layers, _Network(layers))
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


def write_tflite(
    path: Path,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    ranges: Mapping[str, Range],
) -> None:
    """Writes the 8-bit TFLite file: `input` int8 (1, 224, 224, 3), pixel - 128 -> `logits` int8 (1, 1000).

    Args:
        path: Where to.
        layers: The network with corrected biases.
        weights: Its rounded weights by layer name, made with `pair_safe=False`.
        ranges: Its activation ranges by tensor name.

    Raises:
        ValueError: litert-torch no longer makes one operator of each layer, so tensors cannot be told apart.
    """
    # The quantiser finds the same steps again, as each channel's largest weight is 127 of them.
    model = _float_tflite(path, layers, _Network(layers, {name: weight.real for name, weight in weights.items()}))
    made = quantizer.Quantizer(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    made.load_quantization_recipe(litert_recipes.static_wi8_ai8())
    extremes = {}
    for name, within in ranges.items():
        shape = (1, 1) if name in {"pooled", "logits"} else (1, 1, 1, 1)
        extremes[name] = {
            "min": np.full(shape, within.low, np.float32),
            "max": np.full(shape, within.high, np.float32),
        }
    result = made.quantize(extremes, enable_progress_report=False, enable_progress_bar=False)
    path.write_bytes(bytes(result.quantized_model or b""))
