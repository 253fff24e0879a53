"""Networks that give finished objects: a short list of boxes, each with confidence and class, and no overlaps to remove.

A row is left, top, right, bottom, confidence, class number, and for some tasks something more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgevision.decode._dense import Candidates, take_only
from edgevision.decode._detections import wanted
from edgevision.decode._roles import one_picture
from edgevision.decode.base import DecodeContext
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Tensors, TensorSpec

_ROW = 6
"""Columns before what a task has more."""


class EndToEnd:
    """Reads the rows of one tensor."""

    def __init__(
        self,
        family: str,
        outputs: Mapping[str, TensorSpec],
        context: DecodeContext,
        *,
        normalised: bool,
        extra: int = 0,
    ) -> None:
        """Take the role `predictions`, [1, n, 6 + `extra`].

        Raises:
            ModelError: the role is missing or another is there, or its shape, type or the activation does not fit.
        """
        (self._spec,) = take_only(family, outputs, ("predictions",))
        shape, width = self._spec.shape, _ROW + extra
        if len(shape) != 3 or shape[0] not in (1, -1) or shape[2] not in (width, -1):
            what = "box, confidence, class" + (f", {extra} more" if extra else "")
            raise ModelError(
                f"decoder {family}: output {self._spec.name!r} (predictions) is {list(shape)}; [1, n, {width}] is needed "
                f"({what})"
            )
        if context.activation != "none":
            raise ModelError(
                f"decoder {family}: activation {context.activation} does not belong to finished objects: their scores are "
                "ready; use none"
            )
        self._family = family
        self._width = width
        self._normalised = normalised
        self._context = context

    def find(self, tensors: Tensors, input_size: tuple[int, int]) -> Candidates | None:
        """The rows that are wanted and reach their threshold; None without any.

        Raises:
            ModelError: the rows have another width than they should.
            InferenceError: the model gives no numbers.
        """
        rows = one_picture(tensors, self._spec)
        if rows.shape[1] != self._width:
            raise ModelError(
                f"decoder {self._family}: output {self._spec.name!r} gave rows of {rows.shape[1]}; {self._width} are needed"
            )
        quantization = self._spec.quantization
        real = rows.astype(np.float32) if quantization is None else dequantize(rows, quantization)
        confidence = real[:, 4]
        if len(real) and np.isnan(confidence).all():
            raise InferenceError(f"output {self._spec.name!r}: all scores are NaN: the model is broken")
        number = real[:, 5]
        # What is no class number is no object.
        known = (number > -0.5) & (number < 2**31)
        class_id = np.rint(np.where(known, number, -1)).astype(np.intp)
        cells = wanted(np.where(known, confidence, -1), class_id, self._context)
        if not cells.size:
            return None
        xyxy = real[cells, :4]
        return Candidates(
            xyxy=xyxy * np.array(input_size * 2, np.float32) if self._normalised else xyxy,
            confidence=confidence[cells],
            class_id=class_id[cells],
            extra=real[cells, _ROW:],
        )
