"""Centre crop: the middle of the picture in the input's own proportions; what classifiers are trained with."""

from __future__ import annotations

from pydantic import Field

from edgevision import registry
from edgevision.preprocess._pixels import FittedPreprocessor, Interpolation
from edgevision.preprocess.base import InputFormat, Preprocessor
from edgevision.types import BoxXyxy, TensorSpec


class Options(registry.Options):
    """How much of the picture is taken."""

    fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    """Side of the crop as a part of the largest crop that fits: for a square input, of the picture's short side."""
    interpolation: Interpolation = "linear"


def create(options: Options, spec: TensorSpec, input_format: InputFormat) -> Preprocessor:
    """Make a centre crop for one model input.

    Raises:
        ModelError: the input is no picture, or cannot hold the pixels that `input_format` describes.
    """
    width, height = input_format.size

    def fit(visible: BoxXyxy) -> tuple[BoxXyxy, BoxXyxy]:
        left, top, right, bottom = visible
        scale = min((right - left) / width, (bottom - top) / height) * options.fraction
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        x, y = left + (right - left - w) // 2, top + (bottom - top - h) // 2
        return (x, y, x + w, y + h), (0, 0, width, height)

    return FittedPreprocessor(spec=spec, input_format=input_format, fit=fit, interpolation=options.interpolation)
