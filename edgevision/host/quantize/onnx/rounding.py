"""Rounding weights so that their errors cancel in the result, instead of each to its nearest step.

Nearest rounding of 8-bit weights alone leaves YOLOX-nano's last layers at 18 dB: a depthwise channel has nine weights, and
their errors add up. Here the weights of a channel are rounded one after the other, and each one's error is taken up by those
that are not rounded yet, as far as their inputs go together (Frantar et al. 2022, "GPTQ", sections 3 and 4, after
Hassibi's Optimal Brain Surgeon).

What is aimed at is either what the trained weights make of the quantised input, or the float layer's result. The latter
takes up errors of the layers before too and keeps scores as high as they were, but least squares with noisy inputs shrinks
weights, and what it shrinks most is rare and far from the mean. Which is better is measured, model by model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgevision.host.quantize.onnx.weights import PAIR_TOP, TOP

POSITIONS: Final = 384
"""Of each picture's result that are looked at."""
MOST_COLUMNS: Final = 2400
"""Weights of one output channel; beyond, the system of equations takes too long and errors average out by themselves."""
DAMPING: Final = 0.1
"""Share of the mean input power that keeps weights near where they were. GPTQ takes 0.01 where it aims at the trained weights'
own result; aiming at the float layer's, ten times as much gave less noise on other pictures (YOLOX-nano: 25.1 dB for 24.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a two-dimensional convolution walks over its input."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    """Top, left, bottom, right."""
    dilations: tuple[int, int]
    groups: int


def geometry(node: onnx.NodeProto, weight_shape: tuple[int, ...]) -> Geometry | None:
    """What a Conv's attributes say; None where its padding is implicit or it has not two dimensions."""
    said: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type != "Conv" or len(weight_shape) != 4 or said.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        return None
    top, left, bottom, right = said.get("pads", [0, 0, 0, 0])
    down, across = said.get("strides", [1, 1])
    far_down, far_across = said.get("dilations", [1, 1])
    return Geometry(
        kernel=(weight_shape[2], weight_shape[3]),
        strides=(down, across),
        pads=(top, left, bottom, right),
        dilations=(far_down, far_across),
        groups=said.get("group", 1),
    )


def sample(
    image: NDArray[np.float32], result: NDArray[np.float32], shape: Geometry, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Some positions of a convolution's result, and what it reads for them.

    Args:
        image: (1, channels in, height, width) that is read.
        result: (1, channels out, height, width) that is wanted.
        shape: of the convolution.
        generator: chooses the positions.

    Returns:
        (groups, positions, channels in / groups * kernel) and (groups, positions, channels out / groups).
    """
    height, width = result.shape[2:]
    chosen = generator.choice(height * width, min(POSITIONS, height * width), replace=False)
    row, column = np.divmod(chosen, width)
    top, left, bottom, right = shape.pads
    padded = np.pad(image[0], ((0, 0), (top, bottom), (left, right)))
    rows = row[:, None] * shape.strides[0] + np.arange(shape.kernel[0]) * shape.dilations[0]
    columns = column[:, None] * shape.strides[1] + np.arange(shape.kernel[1]) * shape.dilations[1]
    # (channels, positions, kernel height, kernel width)
    read = padded[:, rows[:, :, None], columns[:, None, :]]
    by_group = read.reshape(shape.groups, -1, *read.shape[1:]).transpose(0, 2, 1, 3, 4)
    wanted = result[0, :, row, column].reshape(len(chosen), shape.groups, -1).transpose(1, 0, 2)
    return by_group.reshape(shape.groups, len(chosen), -1), wanted


def round_weights(
    weight: NDArray[np.floating],
    scale: NDArray[np.floating],
    read: NDArray[np.floating],
    *,
    pair_safe: bool,
    wanted: NDArray[np.floating] | None = None,
) -> NDArray[np.int8]:
    """Round a layer's weights for the least squared change of its result; its bias takes up the mean.

    Args:
        weight: (channels out, channels in / groups, ...) real values.
        scale: (channels out,) real value of one step.
        read: (groups, positions, columns) what the quantised layer reads; a column is one weight of a channel.
        pair_safe: keep any two weights of a channel and sign within `weights.PAIR_TOP`.
        wanted: (groups, positions, channels out / groups) the float layer's result there, to be aimed at; None aims at what
            the real weights make of `read`.

    Returns:
        Steps in the weight's shape.
    """
    groups, _, columns = read.shape
    real = np.asarray(weight, np.float64).reshape(groups, -1, columns)
    step = np.asarray(scale, np.float64).reshape(groups, -1, 1)
    low, high = _limits(real / step, pair_safe=pair_safe)
    x = read - read.mean(axis=1, keepdims=True, dtype=np.float64)
    power = x.transpose(0, 2, 1) @ x / x.shape[1]
    # A channel that is never anything but constant has no say in the result: any damping will do.
    damping = np.maximum(DAMPING * np.trace(power, axis1=1, axis2=2) / columns, 1e-12)[:, None, None] * np.eye(columns)
    inverse = np.linalg.inv(power + damping)
    if wanted is not None:
        y = wanted - wanted.mean(axis=1, keepdims=True, dtype=np.float64)
        # The weights that fit best before rounding, held near those that were trained.
        real = (y.transpose(0, 2, 1) @ x / x.shape[1] + real @ damping) @ inverse
    order = np.argsort(-np.diagonal(power, axis1=1, axis2=2).mean(axis=0), kind="stable")
    left, low, high = real[:, :, order], low[:, :, order], high[:, :, order]
    # inverse = upper^T upper
    upper = np.linalg.cholesky(inverse[:, order][:, :, order]).transpose(0, 2, 1)
    steps = np.zeros_like(left)
    for column in range(columns):
        now = left[:, :, column : column + 1] / step
        steps[:, :, column] = np.clip(np.rint(now), low[:, :, column : column + 1], high[:, :, column : column + 1])[
            ..., 0
        ]
        error = (left[:, :, column] - steps[:, :, column] * step[..., 0]) / upper[:, column, column][:, None]
        left[:, :, column + 1 :] -= error[:, :, None] * upper[:, column, None, column + 1 :]
    back = np.empty_like(order)
    back[order] = np.arange(columns)
    rounded: NDArray[np.int8] = steps[:, :, back].reshape(weight.shape).astype(np.int8)
    return rounded


def _limits(steps: NDArray[np.float64], *, pair_safe: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each weight may go, down and up."""
    if not pair_safe or steps.shape[-1] < 2:
        return np.full_like(steps, -TOP), np.full_like(steps, TOP)
    return -_pair_limit(-steps), _pair_limit(steps)


def _pair_limit(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upwards: a channel's greatest weight may stay about where it is, and what is left is for each of the others."""
    greatest = steps.max(axis=-1, keepdims=True)
    own = np.clip(np.rint(greatest) + 1, PAIR_TOP // 2, TOP)
    limit = np.broadcast_to(PAIR_TOP - own, steps.shape).copy()
    np.put_along_axis(limit, steps.argmax(axis=-1, keepdims=True), own, axis=-1)
    return limit
