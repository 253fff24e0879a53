"""Scale and zero point: the only place where real values become integers and back.

Source of the formulae: real = scale * (q - zero_point), the LiteRT 8-bit quantisation specification; ONNX's
QuantizeLinear (round half to even, saturate) is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.types import Quantization


def _along_axis(values: NDArray[Any], quantization: Quantization, ndim: int) -> NDArray[Any]:
    """Reshape (c,) so that it broadcasts against an array of `ndim` dimensions along the quantised axis."""
    if quantization.axis is None:
        return values
    shape = [1] * ndim
    shape[quantization.axis] = -1
    return values.reshape(shape)


def quantize(real: NDArray[Any], quantization: Quantization, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Nearest integers of `real` (any shape), saturated to `dtype`."""
    scale = _along_axis(quantization.scale, quantization, real.ndim).astype(np.float64)
    zero_point = _along_axis(quantization.zero_point, quantization, real.ndim)
    limits = np.iinfo(dtype)
    quantized: NDArray[Any] = np.clip(np.rint(real / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return quantized


def dequantize(values: NDArray[Any], quantization: Quantization) -> NDArray[np.float32]:
    """Real values of integers (any shape), float32."""
    scale = _along_axis(quantization.scale, quantization, values.ndim)
    zero_point = _along_axis(quantization.zero_point, quantization, values.ndim)
    if values.dtype.itemsize <= 2:
        # float32 holds every difference of 16-bit integers exactly, so this rounds once, like the way through float64.
        real: NDArray[np.float32] = values.astype(np.float32)
        real -= zero_point.astype(np.float32)
        real *= scale
        return real
    wide: NDArray[np.float32] = ((values.astype(np.int64) - zero_point) * scale.astype(np.float64)).astype(np.float32)
    return wide


def quantized_threshold(real: float, quantization: Quantization, dtype: np.dtype[Any]) -> int:
    """The smallest integer whose real value is at least `real`; one past the dtype's maximum where none is.

    Comparing integers with it selects exactly what comparing dequantised values with `real` would. Per-tensor scales
    only.
    """
    scale, zero_point = np.float32(quantization.scale[0]), int(quantization.zero_point[0])
    limits = np.iinfo(dtype)
    guess = int(np.clip(np.ceil(real / float(scale)) + zero_point, limits.min, limits.max + 1))
    # The guess is made in float64 and the tensor is read in float32: step until the float32 comparison agrees.
    while guess > limits.min and np.float32(guess - 1 - zero_point) * scale >= np.float32(real):
        guess -= 1
    while guess <= limits.max and np.float32(guess - zero_point) * scale < np.float32(real):
        guess += 1
    return guess


def pixel_table(
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    quantization: Quantization | None,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """The model's input value for every pixel value and channel: (256, 3) in `dtype`.

    A pixel has 256 values, so normalisation and quantisation of a uint8 picture is a table look-up, never arithmetic:
    entry [p, c] = q((p - mean[c]) / std[c]). With neither mean nor std the real value is the pixel itself.

    Raises:
        ValueError: an integer input without a quantisation cannot hold normalised values, or most pixel values lie
            outside what the input can hold, which is a wrong or missing `mean` and `std`.
    """
    real = np.repeat(np.arange(256, dtype=np.float64)[:, None], 3, axis=1)
    normalised = mean is not None or std is not None
    if normalised:
        real = (real - np.asarray(mean or (0.0,) * 3)) / np.asarray(std or (1.0,) * 3)
    if not np.issubdtype(dtype, np.integer):
        return real.astype(dtype)
    if quantization is not None:
        _refuse_saturation(real, quantization, dtype)
        return quantize(real, quantization, dtype)
    if normalised:
        raise ValueError(
            f"a {dtype} input that carries no scale and zero point takes raw pixels: leave out `mean` and `std`"
        )
    if dtype == np.int8:
        return (real - 128).astype(dtype)
    return real.astype(dtype)


def _refuse_saturation(real: NDArray[np.float64], quantization: Quantization, dtype: np.dtype[Any]) -> None:
    """A table that is mostly its own ends shows the model a black and white picture, and nobody would see why."""
    limits = np.iinfo(dtype)
    scale, zero_point = float(quantization.scale[0]), int(quantization.zero_point[0])
    low, high = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale
    outside = int(((real < low - scale) | (real > high + scale)).sum())
    if outside > real.size // 2:
        raise ValueError(
            f"the input holds real values from {low:.4g} to {high:.4g}, but pixels become {real.min():.4g} to "
            f"{real.max():.4g}: set `mean` and `std` so that (pixel - mean) / std fits"
        )
