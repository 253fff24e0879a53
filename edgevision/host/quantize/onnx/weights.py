"""Scales of 8-bit weights, one per output channel, that neither saturate on old processors nor overflow their bias."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

TOP: Final = 127
"""The greatest 8-bit weight; -128 is not used, so that the zero point is 0."""
PAIR_TOP: Final = 128
"""255 times two weights of one sign that are 128 together is 32640; 129 together would pass 32767."""
BIAS_STEPS: Final = 2**28
"""A bias is an int32 of steps of input scale times weight scale; an eighth of its range, as sums are added to it."""
TINY: Final = 1e-12


def channel_axis(node: onnx.NodeProto) -> int:
    """The weight's axis of output channels of a Conv, ConvTranspose, Gemm or MatMul."""
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and helper.get_attribute_value(a) for a in node.attribute)
        return 0 if transposed else 1
    return 0 if node.op_type == "Conv" else 1


def weight_scales(
    weight: NDArray[np.floating],
    *,
    axis: int,
    pair_safe: bool,
    bias: NDArray[np.floating] | None = None,
    input_scale: float = 0.0,
) -> NDArray[np.float32]:
    """Symmetric scale of each output channel.

    x86 without VNNI multiplies unsigned activations by signed weights with `vpmaddubsw`, which adds two products in 16
    bits and saturates at 32767. Halving every weight (`reduce_range`) makes that safe and costs a bit of each. But it only
    happens where two weights of one sign are more than 128 together: it is enough to scale each channel by its two
    greatest weights of one sign, whichever two the kernel pairs.

    A channel that training has switched off has weights around 1e-9 and only a bias. Its scale is raised until the bias
    fits; that moves the channel by less than a step.

    Args:
        weight: any number of axes.
        axis: of the output channels.
        pair_safe: True keeps any two weights of one sign within `PAIR_TOP`; False only each within `TOP`.
        bias: (channels,), where there is one.
        input_scale: of the tensor that is multiplied, for the bias.

    Returns:
        (channels,) the real value of one step, as the file holds it.
    """
    rows = np.moveaxis(np.asarray(weight, np.float64), axis, 0).reshape(weight.shape[axis], -1)
    bound = np.abs(rows).max(axis=1)
    if pair_safe and rows.shape[1] > 1:
        for side in (rows, -rows):
            greatest = np.partition(np.maximum(side, 0), -2, axis=1)[:, -2:]
            # Each of the two may be rounded up by half a step: 127 steps between them leave room for that.
            bound = np.maximum(bound, greatest.sum(axis=1))
    scale = np.maximum(bound / TOP, TINY)
    if bias is not None and input_scale > 0:
        scale = np.maximum(scale, np.abs(np.asarray(bias, np.float64)) / (input_scale * BIAS_STEPS))
    held: NDArray[np.float32] = np.maximum(scale.astype(np.float32), np.finfo(np.float32).tiny)
    return held


def is_pair_safe(steps: NDArray[np.int8], *, axis: int) -> bool:
    """Whether no two weights of one channel and one sign are more than `PAIR_TOP` together."""
    rows = np.moveaxis(steps.astype(np.int32), axis, 0).reshape(steps.shape[axis], -1)
    if rows.shape[1] < 2:
        return True
    return all(
        int(np.sort(np.maximum(side, 0), axis=1)[:, -2:].sum(axis=1).max()) <= PAIR_TOP for side in (rows, -rows)
    )
