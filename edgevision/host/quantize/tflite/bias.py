"""Takes out of the biases what rounding the weights does to a channel's mean, and lifts channels that are switched off.

Rounding errors of one kernel do not cancel: where a layer's inputs have a mean (after ReLU6 all have), they add up to a
constant per channel, which the bias can take back. The correction is that of Nagel et al., Data-Free Quantization Through
Weight Equalization and Bias Correction (2019), section 4.2, with means measured on the calibration set instead of derived.
It is made in the float model, before the library quantises it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.operators import CONVOLUTIONS, Operator
from edgevision.host.quantize.tflite.ranges import Range

_WEIGHT_STEPS = 127
_BIAS_STEPS = 2**28
"""The most steps that a bias may take: an eighth of int32, so that the sum of products still fits beside it."""


def prepare_biases(
    graph: Graph,
    ranges: Mapping[str, Range],
    channel_means: Mapping[str, NDArray[np.float64]],
    *,
    keep: Collection[int] = (),
    correct: bool = True,
) -> int:
    """Lift channels that are switched off, then correct the biases; the graph is changed.

    Args:
        graph: a float model.
        ranges: by tensor name.
        channel_means: of what each convolution reads, by tensor name: (channels,).
        keep: operators that stay in float, by index.
        correct: False only lifts.

    Returns:
        How many layers were corrected.
    """
    corrected = 0
    for step in graph.operators():
        if step.kind not in CONVOLUTIONS or step.index in keep:
            continue
        if not (graph.is_constant(step.weight) and step.bias >= 0 and graph.is_constant(step.bias)):
            continue
        if {graph.type_name(step.weight), graph.type_name(step.bias)} != {"FLOAT32"}:
            continue
        source = graph.tensor_name(step.data)
        weight, bias = graph.constant(step.weight), graph.constant(step.bias)
        if source in ranges:
            weight, changed = _lift(step, weight, bias, ranges[source])
            if changed:
                graph.set_constant(step.weight, weight)
        if correct and source in channel_means:
            error = _mean_error(step, weight, channel_means[source])
            if error is not None and error.shape == bias.shape:
                graph.set_constant(step.bias, (bias - error).astype(np.float32))
                corrected += 1
    return corrected


def _lift(
    step: Operator, weight: NDArray[np.float32], bias: NDArray[np.float32], read: Range
) -> tuple[NDArray[np.float32], bool]:
    """Give channels whose weights training has shrunk to nothing a scale that their bias fits.

    A bias is held as int32 in steps of input scale times weight scale. With weights around 1e-9 it overflows, and what
    comes out is up to the processor. The largest weight of such a channel is raised until the bias takes 2^28 steps, which
    moves the channel by at most 127 * 255 / 2^28 = 0.012 % of its bias.
    """
    rows = np.moveaxis(weight, step.channel_axis, 0).reshape(bias.size, -1).copy()
    scale = max(read.high - read.low, 1e-9) / 255
    least = _WEIGHT_STEPS * np.abs(bias) / (scale * _BIAS_STEPS)
    peak = np.abs(rows).argmax(1)
    channels = np.arange(bias.size)
    value = rows[channels, peak]
    low = np.abs(value) < least
    if not low.any():
        return weight, False
    rows[channels, peak] = np.where(low, np.where(value < 0, -least, least), value)
    moved = np.moveaxis(weight, step.channel_axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, step.channel_axis)), True


def _mean_error(step: Operator, weight: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """What rounding adds to each output channel on average; (channels,). None for a layout that is not known."""
    difference = rounded(weight, step.channel_axis).astype(np.float64) - weight
    if step.kind == "DEPTHWISE_CONV_2D":
        per_channel = difference.sum((0, 1, 2))  # (1, kh, kw, channels)
        if per_channel.size % means.size:
            return None
        return np.asarray(per_channel * np.repeat(means, per_channel.size // means.size))
    outputs, inputs = difference.shape[0], difference.shape[-1]
    if inputs == 0 or means.size % inputs:
        return None
    # A grouped convolution's weight holds the inputs of one group only.
    groups = means.size // inputs
    if outputs % groups:
        return None
    sums = difference.reshape(groups, outputs // groups, -1, inputs).sum(2)
    return np.asarray(np.einsum("goi,gi->go", sums, means.reshape(groups, inputs)).reshape(-1))


def rounded(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The weights that an integer kernel computes with: 127 symmetric steps per output channel, as the library's.

    Args:
        weight: any shape.
        axis: the axis of output channels.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    peak = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.maximum(peak, 1e-9) / _WEIGHT_STEPS
    return np.asarray(np.clip(np.rint(weight / scale), -_WEIGHT_STEPS, _WEIGHT_STEPS) * scale, np.float32)
