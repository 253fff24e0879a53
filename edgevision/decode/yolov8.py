"""YOLOv8, v9, 11, 12 and whatever else has their head: anchor-free, one box and the class scores for each cell.

As Ultralytics exports it there is one tensor `predictions` [1, 4 + classes, cells], boxes as centre and size, scores after
their sigmoid; in .tflite boxes are `normalised`. Cut before its last operations, as for NPUs, a network gives `boxes` and
`scores`, or `boxes_8`, `scores_8` and so on for each stride, with `box_format: dfl` and `activation: sigmoid`
(arXiv:2006.04388 for the distributions).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgevision.decode._dense import DenseHeads
from edgevision.decode._detections import Finisher, nothing
from edgevision.decode._yolo_heads import YoloOptions, make_heads
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec


class Options(YoloOptions):
    """As Ultralytics exports it to ONNX."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of `predictions`; of `boxes` and `scores`; or of either for each stride.

    Raises:
        ModelError: a role is missing or one too many, or a shape, type or the activation does not fit.
    """
    return _Yolov8(make_heads("yolov8", options, outputs, context), context)


class _Yolov8:
    """A `Decoder`."""

    def __init__(self, heads: DenseHeads, context: DecodeContext) -> None:
        self._heads = heads
        self._context = context
        self._finish = Finisher(context)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the number of cells is not that of the input size's grids, where boxes depend on them.
            InferenceError: the model gives no numbers.
        """
        found = self._heads.find(tensors, transform.input_size)
        if found is None:
            return nothing(self._context)
        return self._finish(found.xyxy, found.confidence, found.class_id, transform)
