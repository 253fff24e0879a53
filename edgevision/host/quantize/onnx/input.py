"""Letting a quantised model take a camera's bytes as they are, so that the device computes no float before it.

A model's first quantise node turns (pixel - mean) / std into steps. Where that gives back the pixel itself, all of it
is a detour and goes; the other cases are told, not approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PIXELS: Final = np.arange(256)
SIGN_OFFSET: Final = 128
"""An int8 step is the uint8 step less this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fed:
    """A model that takes bytes, or why there is none."""

    model: onnx.ModelProto | None
    reason: str
    """Empty where there is a model; else one line for the user."""


def feed_uint8(model: onnx.ModelProto, *, mean: Sequence[float], std: Sequence[float]) -> Fed:
    """Make a quantised model's input uint8 pixels of 0 to 255, if that changes no output at all.

    Args:
        model: with one image input, float32, whose opset is 13 or later; not changed.
        mean: of the pixels 0-255, one number or one a channel; 0 for a network that reads raw pixels.
        std: alike; 1 for raw pixels.
    """
    if len(model.graph.input) != 1:
        return Fed(
            model=None, reason=f"the model has {len(model.graph.input)} inputs; only one image can be fed as bytes"
        )
    made = onnx.ModelProto()
    made.CopyFrom(model)
    value = made.graph.input[0]
    readers = [node for node in made.graph.node if value.name in node.input]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return _float_first(made, value, mean, std)
    first = readers[0]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    scale, zero_point = constants[first.input[1]], constants[first.input[2]]
    offset = SIGN_OFFSET if zero_point.dtype == np.int8 else 0
    if zero_point.dtype not in {np.dtype(np.uint8), np.dtype(np.int8)} or scale.size != 1:
        return Fed(model=None, reason=f"input {value.name!r} is quantised to {zero_point.dtype}, {scale.size} scales")
    for channel, (m, s) in enumerate(zip(*np.broadcast_arrays(mean, std), strict=True)):
        wrong = _first_wrong(float(m), float(s), scale, zero_point, offset)
        if wrong is not None:
            return Fed(
                model=None,
                reason=f"channel {channel} (mean {m:g}, std {s:g}): pixel {wrong} is not step {wrong} of scale "
                f"{float(scale.item()):.6g}, zero point {int(zero_point.item()) + offset}; bytes need one whole mean and "
                "one std for all channels, and the range from pixel 0 to 255",
            )
    value.type.tensor_type.elem_type = TensorProto.UINT8
    if not offset:
        _take_out(made, first, value.name)
        return Fed(model=made, reason="")
    # Signed activations: the same steps, counted from another zero.
    zero, real = f"{value.name}_uint8_zero_point", f"{value.name}_real"
    made.graph.initializer.append(numpy_helper.from_array(np.array(int(zero_point.item()) + offset, np.uint8), zero))
    node = helper.make_node("DequantizeLinear", [value.name, first.input[1], zero], [real], name=real)
    made.graph.node.insert(0, node)
    first.input[0] = real
    return Fed(model=made, reason="")


def _float_first(
    model: onnx.ModelProto, value: onnx.ValueInfoProto, mean: Sequence[float], std: Sequence[float]
) -> Fed:
    """Where the first nodes compute in float: a dequantise node before them, if it gives the very same numbers."""
    means, stds = sorted(set(mean)), sorted(set(std))
    scale = np.float32(1 / stds[0])
    if len(means) != 1 or len(stds) != 1 or means[0] not in PIXELS:
        return Fed(model=None, reason=f"mean {list(mean)}, std {list(std)}: bytes need one whole mean and one std")
    wanted = ((PIXELS - means[0]) / stds[0]).astype(np.float32)
    if not np.array_equal((PIXELS - means[0]).astype(np.float32) * scale, wanted):
        return Fed(model=None, reason=f"std {stds[0]:g}: the first layer is float, and 1 / std is no exact float32")
    real, zero = f"{value.name}_real", f"{value.name}_uint8_zero_point"
    for node in model.graph.node:
        node.input[:] = [real if read == value.name else read for read in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale), f"{value.name}_uint8_scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(means[0], np.uint8), zero))
    inputs = [value.name, f"{value.name}_uint8_scale", zero]
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [real], name=real))
    value.type.tensor_type.elem_type = TensorProto.UINT8
    return Fed(model=model, reason="")


def _first_wrong(
    mean: float, std: float, scale: NDArray[np.floating], zero_point: NDArray[np.integer], offset: int
) -> int | None:
    """The first pixel whose step is not the pixel itself."""
    real = ((PIXELS - mean) / std).astype(np.float32)
    steps = np.rint(real / scale.astype(np.float32)).astype(np.int64) + int(zero_point.item()) + offset
    wrong = np.flatnonzero(steps != PIXELS)
    return int(wrong[0]) if wrong.size else None


def _take_out(model: onnx.ModelProto, first: onnx.NodeProto, name: str) -> None:
    steps = first.output[0]
    model.graph.node.remove(first)
    for node in model.graph.node:
        node.input[:] = [name if read == steps else read for read in node.input]
