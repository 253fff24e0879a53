"""A float model in, the same model with explicit quantise and dequantise nodes out, as ONNX Runtime or TensorRT wants it.

ONNX Runtime's own quantiser writes the nodes. Ours is what decides the accuracy: which values each tensor covers
(`ranges`), the weights' scales (`weights`), the biases (`bias`), and which nodes stay float. ONNX Runtime makes an integer
kernel only where a node has dequantise nodes before and a quantise node right behind it: so a convolution's result is
quantised before its activation, and the activation itself works on integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgevision.host.quantize.onnx import bias
from edgevision.host.quantize.onnx.ranges import CalibrationInputs, Histogram, Range, Rule, choose, observe
from edgevision.host.quantize.onnx.seen import Readers
from edgevision.host.quantize.onnx.tail import WEIGHTED, find_tail, is_weighted
from edgevision.host.quantize.onnx.weights import channel_axis, weight_scales

INTEGER: Final = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul",
    "MaxPool", "Mul", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""What ONNX Runtime's CPU provider computes on 8-bit integers."""
FLOAT_RESULT: Final = frozenset({"Gemm", "MatMul"})
"""Integer kernels that can give a float result: the last one keeps its full precision at no cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to make a model 8-bit."""

    name: str
    signed: bool = False
    """Activations int8 instead of uint8; weights are int8 always."""
    symmetric: bool = False
    """Activations' zero point is 0 (of int8), as TensorRT wants it."""
    pair_safe: bool = False
    """Weights that no processor's 16-bit sum of two products can overflow: x86 without VNNI."""
    rule: Rule = Rule.MSE
    through_activations: bool = True
    """Judge a range after the activation through which alone the tensor is seen."""
    correct_bias: bool = True
    round_weights: bool = True
    """With `correct_bias`: round weights so that their errors cancel, see `rounding`."""
    refit: bool = True
    """With `round_weights`: aim at the float layer's results."""
    inputs_only: bool = False
    """TensorRT: only what convolutions and matrix products read is quantised; it fuses the rest itself. Biases stay float."""
    float_last: Literal["all", "unbounded", "none"] = "all"
    """Which of the last convolutions stay in float. "unbounded" leaves out those that are only seen through a sigmoid: a score
    needs no more than 8 bits, a box does. Last matrix products are integer in any case, with a float result."""
    float_nodes: frozenset[str] = frozenset()
    """Names of more nodes to leave in float, with the activation that follows each."""


def quantize(
    model: onnx.ModelProto,
    *,
    calibration: CalibrationInputs,
    recipe: Recipe,
    observed: Mapping[str, Histogram] | None = None,
    fixed_ranges: Mapping[str, Range] | None = None,
    threads: int = 0,
) -> onnx.ModelProto:
    """Make a prepared float model 8-bit.

    Args:
        model: from `prepare`; not changed.
        calibration: pictures to choose ranges and correct biases with.
        recipe: how.
        observed: from `observe_all` with the same model and pictures, to try several recipes; None observes now.
        fixed_ranges: by tensor name, before all others: of an input where it is known, such as (0 - mean) / std to
            (255 - mean) / std, and those of `equalise`.
        threads: of ONNX Runtime; 0 for its own choice.

    Raises:
        ModelError: nothing can be quantised, or there are no calibration pictures.
    """
    plain = _own_biases(model)
    seen = observe_all(plain, calibration, threads=threads) if observed is None else observed
    chosen = choose_ranges(plain, seen, recipe) | dict(fixed_ranges or {})
    quantised = rewrite(plain, chosen, recipe, nodes_to_quantize(plain, recipe))
    if recipe.correct_bias:
        bias.correct(
            plain,
            quantised,
            calibration,
            new_weights=recipe.round_weights,
            pair_safe=recipe.pair_safe,
            refit=recipe.refit,
            threads=threads,
        )
    onnx.checker.check_model(quantised)
    return quantised


def observe_all(model: onnx.ModelProto, calibration: CalibrationInputs, *, threads: int = 0) -> dict[str, Histogram]:
    """Histograms of every tensor that some recipe may quantise; takes most of the time, and serves all recipes."""
    floats = {v.name for v in [*model.graph.value_info, *model.graph.output, *model.graph.input]
              if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}  # fmt: skip
    end = find_tail(model)
    names = [value.name for value in model.graph.input]
    names += [name for node in model.graph.node if node.name not in end.after for name in node.output]
    return observe(model, [name for name in names if name in floats], calibration, threads=threads)


def choose_ranges(model: onnx.ModelProto, observed: Mapping[str, Histogram], recipe: Recipe) -> dict[str, Range]:
    """The range of each observed tensor under a recipe; inputs and sigmoids have theirs by nature."""
    readers = Readers(model)
    sigmoids = {node.output[0] for node in model.graph.node if node.op_type == "Sigmoid"}
    inputs = {value.name for value in model.graph.input}
    ranges = {}
    for name, histogram in observed.items():
        if name in sigmoids and not recipe.symmetric:
            ranges[name] = Range(low=0.0, high=1.0)
            continue
        through = readers.seen_through(name) if recipe.through_activations and not recipe.inputs_only else None
        rule = Rule.MINMAX if name in inputs else recipe.rule
        ranges[name] = choose(histogram, rule, symmetric=recipe.symmetric, seen_through=through)
    return ranges


def nodes_to_quantize(model: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """The names of the nodes that become integer under a recipe, in order."""
    end = find_tail(model)
    readers = Readers(model)
    left = set(end.after)
    floats = [n for n in model.graph.node if n.name in recipe.float_nodes or _stays_float(n, end.last, recipe, readers)]
    for node in floats:
        left.add(node.name)
        # A float convolution that is quantised before its activation would gain nothing.
        left.update(after.name for name in node.output for after in readers.following(name))
    kinds = WEIGHTED if recipe.inputs_only else INTEGER
    return [node.name for node in model.graph.node if node.op_type in kinds and node.name not in left]


def _stays_float(node: onnx.NodeProto, last: frozenset[str], recipe: Recipe, readers: Readers) -> bool:
    if recipe.float_last == "none" or node.name not in last or node.op_type in FLOAT_RESULT:
        return False
    after = readers.of(node.output[0])
    bounded = bool(after) and all(reader.op_type == "Sigmoid" for reader in after)
    return recipe.float_last == "all" or not bounded


def rewrite(
    model: onnx.ModelProto, ranges: Mapping[str, Range], recipe: Recipe, nodes: Sequence[str]
) -> onnx.ModelProto:
    """Write the quantise and dequantise nodes around some nodes.

    Args:
        model: prepared float model; not changed.
        ranges: of each tensor that these nodes read or write.
        recipe: types and kinds of nodes.
        nodes: their names.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if recipe.signed else QuantType.QUInt8,
        tensors_range={
            name: TensorData(lowest=np.float32(r.low), highest=np.float32(r.high)) for name, r in ranges.items()
        },
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=list(WEIGHTED if recipe.inputs_only else INTEGER),
        extra_options={
            "ActivationSymmetric": recipe.symmetric,
            "WeightSymmetric": True,
            "TensorQuantOverrides": _weight_overrides(model, ranges, recipe, nodes),
            "OpTypesToExcludeOutputQuantization": list(WEIGHTED) if recipe.inputs_only else [],
            "QuantizeBias": not recipe.inputs_only,
            "AddQDQPairToWeight": recipe.inputs_only,
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    # A last matrix product gives its sums in float: nothing needs to be quantised behind it.
    end = find_tail(model)
    return _drop_pairs(
        made, [o for n in model.graph.node if n.name in end.last and n.op_type in FLOAT_RESULT for o in n.output]
    )


def _weight_overrides(
    model: onnx.ModelProto, ranges: Mapping[str, Range], recipe: Recipe, nodes: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Each weight's scales, in the form of ONNX Runtime's TensorQuantOverrides."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    chosen = set(nodes)
    scales: dict[str, tuple[int, NDArray[np.float32]]] = {}
    for node in model.graph.node:
        if node.name not in chosen or not is_weighted(node, constants):
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        axis = channel_axis(node)
        of_bias = constants.get(node.input[2]) if len(node.input) > 2 else None
        span = ranges.get(node.input[0], Range(low=0.0, high=0.0))
        scale = weight_scales(
            weight,
            axis=axis,
            pair_safe=recipe.pair_safe,
            bias=None if of_bias is None or recipe.inputs_only else numpy_helper.to_array(of_bias),
            input_scale=(span.high - span.low) / 255,
        )
        # Weights that several nodes share get the greatest scale that one of them needs.
        shared = scales.get(node.input[1])
        scales[node.input[1]] = (axis, scale if shared is None else np.maximum(scale, shared[1]))
    return {
        name: [{"axis": axis, "quant_type": QuantType.QInt8, "scale": s, "zero_point": np.int8(0)} for s in scale]
        for name, (axis, scale) in scales.items()
    }


def _own_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each weighted Conv and Gemm has a bias that it shares with no other node, to be corrected."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    used: set[str] = set()
    for node in copy.graph.node:
        if node.op_type not in {"Conv", "Gemm"} or not is_weighted(node, constants):
            continue
        weight = constants[node.input[1]]
        if len(node.input) < 3 or not node.input[2]:
            value = np.zeros(weight.dims[channel_axis(node)], numpy_helper.to_array(weight).dtype)
        elif node.input[2] not in constants:
            continue
        elif node.input[2] in used:
            value = numpy_helper.to_array(constants[node.input[2]])
        else:
            used.add(node.input[2])
            continue
        name = f"{node.name}_own_bias"
        copy.graph.initializer.append(numpy_helper.from_array(value, name))
        del node.input[2:]
        node.input.append(name)
    return copy


def _drop_pairs(model: onnx.ModelProto, results: Iterable[str]) -> onnx.ModelProto:
    """Take the quantise and dequantise nodes behind these results away."""
    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    for result in results:
        last = maker.get(result)
        if last is None or last.op_type != "DequantizeLinear":
            continue
        first = maker[last.input[0]]
        maker[first.input[0]].output[0] = result
        graph.node.remove(first)
        graph.node.remove(last)
    return model
