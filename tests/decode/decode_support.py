"""Short ways to make decoders, transforms and tensors."""

import numpy as np

from edgevision import registry
from edgevision.decode.base import DecodeContext
from edgevision.types import ImageTransform, Quantization, TensorSpec


def decoder(family, outputs, options=None, **context):
    """A decoder for `outputs` (specs by role)."""
    module = registry.load("decode", family)
    return module.create(module.Options(**(options or {})), outputs, DecodeContext(**context))


def spec(shape, name="out", dtype=np.float32, quantization=None):
    return TensorSpec(name=name, shape=shape, dtype=np.dtype(dtype), quantization=quantization)


def per_tensor(scale, zero_point):
    return Quantization(scale=np.array([scale], np.float32), zero_point=np.array([zero_point], np.int32))


def same(size=(64, 64)):
    """Input pixels are frame pixels."""
    return ImageTransform(frame_size=size, input_size=size, scale=(1.0, 1.0), offset=(0.0, 0.0), region=(0, 0, *size))
