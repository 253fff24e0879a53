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
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgevision.errors import ModelError
from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.operators import Operator
from edgevision.host.quantize.tflite.runner import Calibration, Runner, samples
from edgevision.host.quantize.tflite.silu import Channels, Silu, carry, silu_layers

_FLAT = 5.0
"""Below -5 SiLU is less than 0.034 from zero: what lies further down needs no steps of its own."""
_STEPS = 255
"""The factors that give the sigmoid its argument back are multiples of 1/255, which 8 bits hold exactly."""
_LEAST_STEPS = 2
"""No channel is scaled up by more than 255 / 2. A bound of 16 was 5 dB worse on YOLOX-nano's scores."""
PICTURES = 64
"""Of the calibration set; extents are means, and hardly move after these."""
_FACTOR = "_factor"
"""Ends the name of the constant that gives a sigmoid its argument back."""


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
    layers = silu_layers(graph)
    if not layers:
        return {}
    channels = Channels()
    carried = carry(graph, layers, channels)
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


def unscaled(graph: Graph, read: Callable[[str], NDArray[np.float32] | None]) -> dict[str, NDArray[np.float32]]:
    """What the values of an equalised model are multiplied with to be the float model's again.

    Args:
        graph: the float model, not equalised.
        read: gives a constant of the equalised model in real values, or None where it has none of that name.

    Returns:
        By tensor name, an array that broadcasts over the tensor; tensors that were not scaled are left out.
    """
    layers = silu_layers(graph)
    channels = Channels()
    carried = carry(graph, layers, channels)
    factors: dict[int, float] = {}
    found: dict[int, tuple[NDArray[np.float64], int]] = {}
    for layer in layers:
        given = read(f"{graph.tensor_name(layer.argument)}{_FACTOR}")
        if given is None:
            continue
        back = given.reshape(-1).astype(np.float64)
        factors |= {channels.root(int(number)): factor
                    for number, factor in zip(carried[layer.product.outputs[0]][0], back.tolist(), strict=True)}  # fmt: skip
        found[layer.argument] = (back, layer.axis)
        found[layer.convolution.outputs[0]] = (back, 3)
    for tensor, (numbers, axis) in carried.items():
        back = _of(numbers, channels, factors)
        if (back != 1).any():
            found[tensor] = (back, axis)
    result = {}
    for tensor, (back, axis) in found.items():
        shape = [1, 1, 1, 1]
        shape[axis] = back.size
        result[graph.tensor_name(tensor)] = back.reshape(shape).astype(np.float32)
    return result


def _extents(
    graph: Graph, layers: list[Silu], calibration: Calibration, threads: int
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
    layers: list[Silu],
    carried: Mapping[int, tuple[NDArray[np.int64], int]],
    channels: Channels,
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


def _of(numbers: NDArray[np.int64], channels: Channels, factors: Mapping[int, float]) -> NDArray[np.float64]:
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


def _give_back(graph: Graph, layer: Silu, factor: NDArray[np.float64]) -> None:
    """Put the multiplication in front of the sigmoid."""
    shape = [1, 1, 1, 1]
    shape[layer.axis] = factor.size
    name = graph.tensor_name(layer.argument)
    constant = graph.add_constant(f"{name}{_FACTOR}", factor.reshape(shape).astype(np.float32))
    argument = graph.add_like(layer.argument, f"{name}_own_scale")
    step = copy.deepcopy(graph.subgraph.operators[layer.product.index])
    step.inputs, step.outputs = [layer.argument, constant], [argument]
    graph.subgraph.operators[layer.gate.index].inputs = [argument]
    graph.subgraph.operators.insert(layer.gate.index, step)
