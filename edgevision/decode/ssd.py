"""SSD with its post-processing inside the model: four outputs, boxes ready and already suppressed.

The outputs are those of TensorFlow Lite's `TFLite_Detection_PostProcess`: `boxes` [1, n, 4] as top, left, bottom, right
from 0 to 1 of the input, `classes` [1, n], `scores` [1, n], and `count` [1], how many of the n are filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.decode._detections import Finisher, nothing, wanted
from edgevision.decode._roles import take_roles
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec

ROLES = ("boxes", "classes", "scores", "count")


class Options(registry.Options):
    """How class numbers are meant."""

    class_offset: int = 0
    """Added to the model's class numbers to make line numbers of its labels (from 0)."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the roles `boxes`, `classes`, `scores` and `count`.

    Raises:
        ModelError: a role is missing, or its shape or type or the activation does not fit.
    """
    boxes, classes, scores, count = take_roles("ssd", outputs, ROLES)
    if len(boxes.shape) != 3 or boxes.shape[2] != 4:
        raise ModelError(f"decoder ssd: output {boxes.name!r} (boxes) is {list(boxes.shape)}; [1, n, 4] is needed")
    for role, spec in (("classes", classes), ("scores", scores)):
        if len(spec.shape) != 2 or (-1 not in (spec.shape[1], boxes.shape[1]) and spec.shape[1] != boxes.shape[1]):
            raise ModelError(
                f"decoder ssd: output {spec.name!r} ({role}) is {list(spec.shape)}; [1, n] is needed with the n of "
                f"{boxes.name!r} {list(boxes.shape)}"
            )
    if context.activation != "none":
        raise ModelError(
            f"decoder ssd: activation {context.activation} does not belong to this family: its scores are "
            "ready; use none"
        )
    return _Ssd(options, (boxes, classes, scores, count), context)


class _Ssd:
    """A `Decoder`."""

    def __init__(self, options: Options, specs: tuple[TensorSpec, ...], context: DecodeContext) -> None:
        self._boxes, self._classes, self._scores, self._count = specs
        self._class_offset = options.class_offset
        self._context = context
        self._finish = Finisher(context, suppress=False)  # the model has done it

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            InferenceError: the model's count is no number of detections, or its scores are no numbers.
        """
        room = tensors[self._boxes.name].shape[1]
        count = float(_real(tensors, self._count).ravel()[0])
        if not 0 <= count <= room:
            raise InferenceError(
                f"output {self._count.name!r} counts {count:g} detections; there is room for 0 to {room}"
            )
        n = round(count)
        confidence = _real(tensors, self._scores)[0, :n]
        if n and np.isnan(confidence).all():
            raise InferenceError(f"output {self._scores.name!r}: all scores are NaN: the model is broken")
        class_number = _real(tensors, self._classes)[0, :n]
        class_number = np.where(np.isfinite(class_number), np.rint(class_number) + self._class_offset, -1).astype(
            np.int32
        )
        keep = wanted(np.where(class_number >= 0, confidence, -1), class_number, self._context)
        if not keep.size:
            return nothing(self._context)
        width, height = transform.input_size
        # Columns top, left, bottom, right -> left, top, right, bottom in input pixels.
        boxes = _real(tensors, self._boxes)[0, :n][:, [1, 0, 3, 2]] * np.array((width, height) * 2, np.float32)
        return self._finish(boxes[keep], confidence[keep], class_number[keep], transform)


def _real(tensors: Tensors, spec: TensorSpec) -> NDArray[Any]:
    values = tensors[spec.name]
    return values if spec.quantization is None else dequantize(values, spec.quantization)
