"""Detections that the model has decoded itself, a row each: boxes in pixels of its input, class numbers, scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.decode._detections import Finisher, nothing, wanted
from edgevision.decode._roles import take_roles
from edgevision.decode.base import DecodeContext
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec

_ROLES = ("boxes", "classes", "scores")


class ReadyRows:
    """A `Decoder` of `boxes` [n, 4] as left, top, right, bottom, `classes` [n], `scores` [n], each with or without a batch."""

    def __init__(
        self,
        family: str,
        outputs: Mapping[str, TensorSpec],
        context: DecodeContext,
        *,
        class_offset: int,
        suppress: bool,
    ) -> None:
        """Check the three roles.

        Raises:
            ModelError: one is missing, or its shape or type or the activation does not fit.
        """
        if "classes" in outputs and np.issubdtype(outputs["classes"].dtype, np.integer):
            boxes, scores = take_roles(family, outputs, ("boxes", "scores"))
            classes = outputs["classes"]  # whole numbers need no scale
        else:
            boxes, classes, scores = take_roles(family, outputs, _ROLES)
        if len(boxes.shape) not in (2, 3) or boxes.shape[-1] != 4 or boxes.shape[:-2] not in ((), (1,), (-1,)):
            raise ModelError(
                f"decoder {family}: output {boxes.name!r} (boxes) is {list(boxes.shape)}; [n, 4] or [1, n, 4] is needed"
            )
        for role, spec in (("classes", classes), ("scores", scores)):
            fits = len(spec.shape) == len(boxes.shape) - 1
            if not fits or (-1 not in (spec.shape[-1], boxes.shape[-2]) and spec.shape[-1] != boxes.shape[-2]):
                wanted_shape = "[n]" if len(boxes.shape) == 2 else "[1, n]"
                raise ModelError(
                    f"decoder {family}: output {spec.name!r} ({role}) is {list(spec.shape)}; {wanted_shape} is needed with "
                    f"the n of {boxes.name!r} {list(boxes.shape)}"
                )
        if context.activation != "none":
            raise ModelError(
                f"decoder {family}: activation {context.activation} does not belong to scores of rows whose classes the "
                "model names itself: they are ready; use none"
            )
        self._boxes, self._classes, self._scores = boxes, classes, scores
        self._offset = class_offset
        self._context = context
        self._finish = Finisher(context, suppress=suppress)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            InferenceError: the model gives no numbers, or not as many of each.
        """
        boxes = _real(tensors, self._boxes).reshape(-1, 4)
        confidence = _real(tensors, self._scores).reshape(-1)
        numbers = _real(tensors, self._classes).reshape(-1)
        if not len(boxes) == len(confidence) == len(numbers):
            raise InferenceError(
                f"outputs {self._boxes.name!r}, {self._classes.name!r} and {self._scores.name!r} have {len(boxes)}, "
                f"{len(numbers)} and {len(confidence)} rows; they must have as many"
            )
        if confidence.size and np.isnan(confidence).all():
            raise InferenceError(f"output {self._scores.name!r}: all scores are NaN: the model is broken")
        class_id = np.where(np.isfinite(numbers), np.rint(numbers) + self._offset, -1).astype(np.int32)
        keep = wanted(np.where(class_id >= 0, confidence, -1), class_id, self._context)
        if not keep.size:
            return nothing(self._context)
        return self._finish(boxes.take(keep, axis=0), confidence.take(keep), class_id.take(keep), transform)


def _real(tensors: Tensors, spec: TensorSpec) -> NDArray[Any]:
    values = tensors[spec.name]
    return values if spec.quantization is None else dequantize(values, spec.quantization)
