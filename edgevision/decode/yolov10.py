"""YOLOv10 and YOLO26 as they are exported by default: up to 300 finished objects, no NMS.

The one tensor `predictions` [1, n, 6] has a row for each object: left, top, right, bottom, confidence, class. Rows that are
not needed have a confidence of 0. (Cut off before its top-k, such a network is a `yolov8` with `thresholds: {iou: 1}`.)
"""

from __future__ import annotations

from collections.abc import Mapping

from edgevision import registry
from edgevision.decode._detections import Finisher, nothing
from edgevision.decode._end_to_end import EndToEnd
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec


class Options(registry.Options):
    """How boxes are meant."""

    normalised: bool = False
    """Whether boxes are from 0 to 1 of the input's sides, as in .tflite, and not in pixels."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the role `predictions`, [1, n, 6].

    Raises:
        ModelError: the role is missing or another is there, or its shape, type or the activation does not fit.
    """
    return _Yolov10(EndToEnd("yolov10", outputs, context, normalised=options.normalised), context)


class _Yolov10:
    """A `Decoder`."""

    def __init__(self, rows: EndToEnd, context: DecodeContext) -> None:
        self._rows = rows
        self._context = context
        self._finish = Finisher(context, suppress=False)  # the model has done it

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the rows have another width than they should.
            InferenceError: the model gives no numbers.
        """
        found = self._rows.find(tensors, transform.input_size)
        if found is None:
            return nothing(self._context)
        return self._finish(found.xyxy, found.confidence, found.class_id, transform)
