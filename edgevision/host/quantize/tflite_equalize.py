"""Gives every channel of a SiLU network its own share of the 256 steps, though a .tflite tensor has one scale.

In depthwise networks the channels of one tensor differ in range tenfold, and the small ones, which the next layer's weights
make large again, drown in the steps of the large ones. Cross-layer equalisation (Nagel et al. 2019, section 4.1) evens them
out by scaling a layer's output channels up and the next layer's inputs down, for activations f with f(s x) = s f(x). SiLU is
x * sigmoid(x): scaling passes through its product, but not through its sigmoid. So the sigmoid gets its own argument back by
one more multiplication with a constant per channel, an element-wise step that costs little beside a convolution.

The rewritten model computes the same in float. How it scales is decided on the calibration set.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevision.errors import ModelError
from edgevision.host.quantize.tflite_graph import Graph, Operator
from edgevision.host.quantize.tflite_runner import Calibration, Runner, samples

_FLAT = 5.0
"""Below -5 SiLU is less than 0.034 from zero: what lies further down needs no steps of its own."""
_STEPS = 255
"""The factors that give the sigmoid its argument back are multiples of 1/255, which 8 bits hold exactly."""
_LEAST_STEPS = 2
"""No channel is scaled up by more than 255 / 2. A bound of 16 was 5 dB worse on YOLOX-nano's scores."""
PICTURES = 64
"""Of the calibration set; extents are means, and hardly move after these."""
_PASSING = frozenset({"PAD", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Silu:
    """A convolution whose result is read by SiLU only."""

    convolution: Operator
    gate: Operator
    product: Operator
    argument: int
    """Tensor that sigmoid and product read: the convolution's output, perhaps transposed."""
    axis: int
    """The argument's axis of channels."""


class _Channels:
    """Which channels must have one factor: a union-find over all channels that are looked at."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: set[int] = set()

    def new(self, count: int, *, frozen: bool) -> NDArray[np.int64]:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        if frozen:
            self._frozen.update(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            first, second = self.root(a), self.root(b)
            if first != second:
                self._parent[second] = first
                if second in self._frozen:
                    self._frozen.add(first)

    def freeze(self, channels: NDArray[np.int64]) -> None:
        self._frozen.update(self.root(channel) for channel in channels.tolist())

    def is_frozen(self, channel: int) -> bool:
        return self.root(channel) in self._frozen


def equalize(graph: Graph, calibration: Calibration, *, threads: int = 1) -> dict[str, float]:
    """Scale the channels of a float model's SiLU layers; the graph is changed.

    Args:
        graph: a float model with unique tensor names.
        calibration: the set; the first `PICTURES` of it are looked at.
        threads: of one inference.

    Returns:
        By name of each tensor that was scaled: the lowest value that matters in it. Empty where the model has no SiLU.

    Raises:
        ModelError: the model fails.
        UsageError: the set is empty or does not fit the model.
    """
    layers = _silu_layers(graph)
    if not layers:
        return {}
    channels = _Channels()
    carried = _carry(graph, layers, channels)
    extents = _extents(graph, layers, calibration, threads)
    factors = _factors(layers, carried, channels, extents)
    for step in graph.operators():
        if step.kind in {"CONV_2D", "DEPTHWISE_CONV_2D"} and step.data in carried:
            _absorb(graph, step, _of(carried[step.data][0], channels, factors))
    floors: dict[str, float] = {}
    for layer in sorted(layers, key=lambda each: -each.gate.index):  # from the end: an insertion moves what follows
        factor = _of(carried[layer.product.outputs[0]][0], channels, factors)
        if (factor == 1).all():
            continue
        _scale_output(graph, layer.convolution, factor)
        _give_back(graph, layer, 1 / factor)
        floors[graph.tensor_name(layer.argument)] = -float((extents[layer.argument] * factor).max())
    return floors


def _silu_layers(graph: Graph) -> list[_Silu]:
    operators = graph.operators()
    readers: dict[int, list[Operator]] = {}
    maker = {output: step for step in operators for output in step.outputs}
    for step in operators:
        for tensor in dict.fromkeys(step.inputs):
            readers.setdefault(tensor, []).append(step)
    found = []
    for gate in operators:
        argument, opened = gate.inputs[0], gate.outputs[0]
        products = readers.get(opened, [])
        if gate.kind != "LOGISTIC" or [step.kind for step in products] != ["MUL"]:
            continue
        alone = len(readers[argument]) == 2 and not {argument, opened} & set(graph.outputs)
        if not alone or set(products[0].inputs) != {argument, opened} or _fused(graph, products[0]):
            continue
        source = _source(graph, argument, maker, readers)
        if source is not None:
            convolution, axis = source
            found.append(_Silu(convolution=convolution, gate=gate, product=products[0], argument=argument, axis=axis))
    return found


def _source(
    graph: Graph, tensor: int, maker: Mapping[int, Operator], readers: Mapping[int, list[Operator]]
) -> tuple[Operator, int] | None:
    """The convolution that makes a tensor, through transpositions of which nobody else reads; and the axis of channels."""
    orders: list[NDArray[np.int64]] = []
    step = maker.get(tensor)
    while step is not None and step.kind == "TRANSPOSE" and graph.is_constant(step.inputs[1]):
        if len(readers[step.inputs[0]]) != 1 or step.inputs[0] in graph.outputs:
            return None
        orders.append(graph.constant(step.inputs[1]))
        step = maker.get(step.inputs[0])
    if step is None or step.kind not in {"CONV_2D", "DEPTHWISE_CONV_2D"} or not _is_plain(graph, step):
        return None
    axis = 3
    for order in reversed(orders):
        axis = int(np.flatnonzero(order == axis)[0])
    return step, axis


def _is_plain(graph: Graph, step: Operator) -> bool:
    """Weight and bias are float constants and no activation is fused."""
    options = graph.subgraph.operators[step.index].builtinOptions
    constants = step.bias >= 0 and graph.is_constant(step.weight) and graph.is_constant(step.bias)
    if not constants or options is None or options.fusedActivationFunction != 0:
        return False
    return graph.type_name(step.weight) == "FLOAT32" and len(graph.constant(step.weight).shape) == 4


def _carry(graph: Graph, layers: list[_Silu], channels: _Channels) -> dict[int, tuple[NDArray[np.int64], int]]:
    """Follow the channels of SiLU results to the convolutions that read them.

    Returns:
        Channel numbers and their axis by tensor; a channel that reaches anything but a convolution is frozen.
    """
    products = {layer.product.index: layer for layer in layers}
    carried: dict[int, tuple[NDArray[np.int64], int]] = {}

    def freeze(tensors: tuple[int, ...]) -> None:
        for tensor in tensors:
            if tensor in carried:
                channels.freeze(carried[tensor][0])

    for step in graph.operators():
        made: tuple[NDArray[np.int64], int] | None = None
        if step.index in products:
            layer = products[step.index]
            made = (channels.new(graph.constant(layer.convolution.bias).size, frozen=False), layer.axis)
        elif any(tensor in carried for tensor in step.inputs):
            made = _passed(graph, step, carried, channels)
            if made is None and not _absorbs(graph, step, carried):
                freeze(step.inputs)
        if made is not None:
            carried[step.outputs[0]] = made
    freeze(graph.outputs)
    return carried


def _passed(
    graph: Graph, step: Operator, carried: Mapping[int, tuple[NDArray[np.int64], int]], channels: _Channels
) -> tuple[NDArray[np.int64], int] | None:
    """The channels of an operator's result where it leaves them apart; None where it mixes them or their factors."""
    known = [carried[tensor] for tensor in step.inputs if tensor in carried]
    numbers, axis = known[0]
    if step.kind in _PASSING:
        return known[0]
    if step.kind == "TRANSPOSE" and graph.is_constant(step.inputs[1]):
        return numbers, int(np.flatnonzero(graph.constant(step.inputs[1]) == axis)[0])
    if step.kind == "CONCATENATION":
        return _concatenated(graph, step, carried, channels)
    if step.kind == "ADD" and len(known) == 2 and not _fused(graph, step):
        other, other_axis = known[1]
        if numbers.size == other.size and axis == other_axis:
            channels.join(numbers, other)
            return known[0]
    return None


def _concatenated(
    graph: Graph, step: Operator, carried: Mapping[int, tuple[NDArray[np.int64], int]], channels: _Channels
) -> tuple[NDArray[np.int64], int] | None:
    options = graph.subgraph.operators[step.index].builtinOptions
    axes = {carried[i][1] for i in step.inputs if i in carried}
    axis = options.axis % 4
    if axes != {axis} or options.fusedActivationFunction != 0:
        return None
    parts = []
    for tensor in step.inputs:
        size = int(graph.subgraph.tensors[tensor].shape[axis])
        parts.append(carried[tensor][0] if tensor in carried else channels.new(size, frozen=True))
    return np.concatenate(parts), axis


def _fused(graph: Graph, step: Operator) -> int:
    options = graph.subgraph.operators[step.index].builtinOptions
    return int(options.fusedActivationFunction) if options is not None else 0


def _absorbs(graph: Graph, step: Operator, carried: Mapping[int, tuple[NDArray[np.int64], int]]) -> bool:
    """Whether an operator is a convolution that can take its input's factors into its weight."""
    if step.kind not in {"CONV_2D", "DEPTHWISE_CONV_2D"} or step.data not in carried:
        return False
    numbers, axis = carried[step.data]
    if axis != 3 or not graph.is_constant(step.weight) or graph.type_name(step.weight) != "FLOAT32":
        return False
    width = graph.constant(step.weight).shape[3]
    return bool(width == numbers.size if step.kind == "CONV_2D" else width % numbers.size == 0)


def _extents(
    graph: Graph, layers: list[_Silu], calibration: Calibration, threads: int
) -> dict[int, NDArray[np.float64]]:
    """How far each channel of a SiLU's argument reaches, by tensor: the mean over pictures of each picture's extreme."""
    runner = Runner(graph.to_bytes(), graph.name, threads=threads)
    sums: dict[int, NDArray[np.float64]] = {}
    count = 0
    for sample in samples(calibration, graph.name, limit=PICTURES):
        runner.run(sample)
        count += 1
        for layer in layers:
            value = runner.real(graph.tensor_name(layer.argument))
            value = np.moveaxis(value, layer.axis, -1).reshape(-1, value.shape[layer.axis])
            reach = np.maximum(value.max(0), np.minimum(-value.min(0), _FLAT)).astype(np.float64)
            if not np.isfinite(reach).all():
                raise ModelError(
                    f"model {graph.name!r}: tensor {graph.tensor_name(layer.argument)!r} becomes infinite or NaN on "
                    f"calibration picture {count}; is the preprocessing (mean, std) the model's?"
                )
            sums[layer.argument] = sums.get(layer.argument, np.zeros_like(reach)) + np.maximum(reach, 1e-3)
    return {tensor: total / count for tensor, total in sums.items()}


def _factors(
    layers: list[_Silu],
    carried: Mapping[int, tuple[NDArray[np.int64], int]],
    channels: _Channels,
    extents: Mapping[int, NDArray[np.float64]],
) -> dict[int, float]:
    """The factor of each group of channels, by the group's root.

    A layer's widest channel keeps its scale. Channels tied together (by an addition) have the least of their factors, so
    that none of them outgrows its tensor.
    """
    factors: dict[int, float] = {}
    for layer in layers:
        reach = extents[layer.argument]
        wanted = reach.max() / reach
        for channel, factor in zip(carried[layer.product.outputs[0]][0].tolist(), wanted.tolist(), strict=True):
            root = channels.root(channel)
            factors[root] = 1.0 if channels.is_frozen(channel) else min(factors.get(root, np.inf), factor)
    return {
        root: _STEPS / max(_LEAST_STEPS, min(_STEPS, int(np.ceil(_STEPS / factor)))) for root, factor in factors.items()
    }


def _of(numbers: NDArray[np.int64], channels: _Channels, factors: Mapping[int, float]) -> NDArray[np.float64]:
    return np.array([factors.get(channels.root(channel), 1.0) for channel in numbers.tolist()])


def _absorb(graph: Graph, step: Operator, factor: NDArray[np.float64]) -> None:
    """Divide a convolution's weight by the factors of its input's channels."""
    if (factor == 1).all():
        return
    weight = graph.constant(step.weight)
    if step.kind == "DEPTHWISE_CONV_2D":
        factor = np.repeat(factor, weight.shape[3] // factor.size)
    graph.set_constant(step.weight, (weight / factor).astype(np.float32))


def _scale_output(graph: Graph, step: Operator, factor: NDArray[np.float64]) -> None:
    """Multiply a convolution's output channels."""
    weight, bias = graph.constant(step.weight), graph.constant(step.bias)
    shape = [1] * weight.ndim
    shape[step.channel_axis] = factor.size
    graph.set_constant(step.weight, (weight * factor.reshape(shape)).astype(np.float32))
    graph.set_constant(step.bias, (bias * factor).astype(np.float32))


def _give_back(graph: Graph, layer: _Silu, factor: NDArray[np.float64]) -> None:
    """Put the multiplication in front of the sigmoid."""
    shape = [1, 1, 1, 1]
    shape[layer.axis] = factor.size
    name = graph.tensor_name(layer.argument)
    constant = graph.add_constant(f"{name}_factor", factor.reshape(shape).astype(np.float32))
    argument = graph.add_like(layer.argument, f"{name}_own_scale")
    step = copy.deepcopy(graph.subgraph.operators[layer.product.index])
    step.inputs, step.outputs = [layer.argument, constant], [argument]
    graph.subgraph.operators[layer.gate.index].inputs = [argument]
    graph.subgraph.operators.insert(layer.gate.index, step)
