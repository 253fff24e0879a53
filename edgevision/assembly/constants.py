"""Inputs of a model that are not the picture: the manifest gives them a value once, and it goes along with every picture.

So the exports of RT-DETR and D-FINE with their post-processor inside want to know the picture's size: given the input's own,
their boxes are in input pixels, as every decoder's are before the way back to the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.errors import ModelError
from edgevision.preprocess.base import Preprocessor
from edgevision.types import Frame, ModelInput, TensorSpec


def split_inputs(
    inputs: tuple[TensorSpec, ...], given: Mapping[str, Any], *, where: str
) -> tuple[TensorSpec, dict[str, NDArray[Any]]]:
    """The picture's input, and the values of the others.

    Raises:
        ModelError: not exactly one input is left for the picture, or a constant is unknown or does not fit.
    """
    known = {spec.name: spec for spec in inputs}
    for name in given:
        if name not in known:
            raise ModelError(f"{where}: input.constants: the model has no input {name!r}; it has {', '.join(known)}")
    pictures = [spec for spec in inputs if spec.name not in given]
    if len(pictures) != 1:
        names = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in pictures) or "none"
        raise ModelError(
            f"{where}: inputs: needs one picture input; the model has {names}; what the others are given with every picture "
            "is `input: {constants: {NAME: VALUE}}`"
        )
    return pictures[0], {name: _value(known[name], value, where) for name, value in given.items()}


def _value(spec: TensorSpec, given: Any, where: str) -> NDArray[Any]:
    try:
        value = np.asarray(given, np.float64)
    except ValueError:
        value = np.empty(0)  # rows of unlike length
    fits = len(value.shape) == len(spec.shape) and all(
        wanted in (-1, found) for wanted, found in zip(spec.shape, value.shape, strict=True)
    )
    whole = not np.issubdtype(spec.dtype, np.integer) or bool((value == np.rint(value)).all())
    if not value.size or not fits or not whole:
        raise ModelError(
            f"{where}: input.constants.{spec.name}: found {given}; the model wants {spec.dtype} {list(spec.shape)}"
        )
    return value.astype(spec.dtype)


class WithConstants:
    """A `Preprocessor` that adds the constants."""

    def __init__(self, preprocess: Preprocessor, constants: Mapping[str, NDArray[Any]]) -> None:
        """`constants` by input name."""
        self._preprocess = preprocess
        self._constants = constants
        self._seen: ModelInput | None = None
        self._result: ModelInput

    def __call__(self, frame: Frame) -> ModelInput:
        """Fill the buffer from the frame; raises as the preprocessor within."""
        given = self._preprocess(frame)
        if given is not self._seen:  # its buffer is reused, and so is the whole
            self._result = ModelInput(tensors={**given.tensors, **self._constants}, transform=given.transform)
            self._seen = given
        return self._result
