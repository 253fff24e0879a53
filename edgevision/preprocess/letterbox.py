"""Letterbox: the whole picture, as large as it fits without distortion, the rest of the input filled with grey."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgevision import registry
from edgevision.preprocess._pixels import FittedPreprocessor, Interpolation
from edgevision.preprocess.base import InputFormat, Preprocessor
from edgevision.types import BoxXyxy, TensorSpec


class Options(registry.Options):
    """How the picture lies in its frame of grey."""

    align: Literal["center", "top_left"] = "center"
    """Where the picture lies; YOLOX wants `top_left`, most others `center`."""
    pad: int = Field(default=114, ge=0, le=255)
    """Pixel value of the padding."""
    interpolation: Interpolation = "linear"


def create(options: Options, spec: TensorSpec, input_format: InputFormat) -> Preprocessor:
    """Make a letterbox for one model input.

    Raises:
        ModelError: the input is no picture, or cannot hold the pixels that `input_format` describes.
    """
    width, height = input_format.size

    def fit(visible: BoxXyxy) -> tuple[BoxXyxy, BoxXyxy]:
        left, top, right, bottom = visible
        scale = min(width / (right - left), height / (bottom - top))
        # A side of an extremely long picture is never rounded to nothing.
        w = min(width, max(1, round((right - left) * scale)))
        h = min(height, max(1, round((bottom - top) * scale)))
        x, y = ((width - w) // 2, (height - h) // 2) if options.align == "center" else (0, 0)
        return visible, (x, y, x + w, y + h)

    return FittedPreprocessor(
        spec=spec, input_format=input_format, fit=fit, interpolation=options.interpolation, pad=options.pad
    )
