"""Stretch: the whole picture, each axis scaled by itself; what the SSD family is trained with."""

from __future__ import annotations

from edgevision import registry
from edgevision.preprocess._pixels import FittedPreprocessor, Interpolation
from edgevision.preprocess.base import InputFormat, Preprocessor
from edgevision.types import BoxXyxy, TensorSpec


class Options(registry.Options):
    """How pixels between pixels are made."""

    interpolation: Interpolation = "linear"


def create(options: Options, spec: TensorSpec, input_format: InputFormat) -> Preprocessor:
    """Make a stretching preprocessor for one model input.

    Raises:
        ModelError: the input is no picture, or cannot hold the pixels that `input_format` describes.
    """
    width, height = input_format.size

    def fit(visible: BoxXyxy) -> tuple[BoxXyxy, BoxXyxy]:
        return visible, (0, 0, width, height)

    return FittedPreprocessor(spec=spec, input_format=input_format, fit=fit, interpolation=options.interpolation)
