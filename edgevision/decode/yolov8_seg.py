"""YOLO-seg (YOLOv8-seg, YOLO11-seg, YOLO26-seg): boxes, class scores and a mask for each object.

The role `predictions` [1, 4 + classes + maps, cells] has, behind what `yolov8` knows, one coefficient for each map of the
role `prototypes` [1, maps, h, w]; in .tflite that is [1, h, w, maps], `prototypes_layout: channels_last`. Cut off before its
last operations a network gives `boxes_8`, `scores_8`, `coefficients_8` ... as `yolov8` tells. With `end_to_end` the rows are
finished objects [1, n, 6 + maps], as YOLO26 gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgevision.decode._dense import DenseHeads
from edgevision.decode._detections import Finisher, nothing
from edgevision.decode._end_to_end import EndToEnd
from edgevision.decode._masks import MaskMaker
from edgevision.decode._roles import take_roles
from edgevision.decode._scores import Layout
from edgevision.decode._yolo_heads import YoloOptions, make_heads
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec


class Options(YoloOptions):
    """As Ultralytics exports it to ONNX."""

    prototypes_layout: Layout = "channels_first"
    """Whether `prototypes` is [1, maps, h, w], or [1, h, w, maps] as in .tflite."""
    end_to_end: bool = False
    """Whether `predictions` are finished objects; of the other options only `normalised` counts then."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of `prototypes` and, as `yolov8`, of `predictions` or of `boxes`, `scores` and `coefficients`.

    Raises:
        ModelError: a role is missing or one too many, or a shape, type or the activation does not fit.
    """
    heads = {role: spec for role, spec in outputs.items() if role != "prototypes"}
    if not outputs:
        take_roles("yolov8_seg", outputs, ("predictions", "prototypes"))
    (prototypes,) = take_roles("yolov8_seg", outputs, ("prototypes",))
    masks = MaskMaker("yolov8_seg", prototypes, options.prototypes_layout)
    read: DenseHeads | EndToEnd
    if options.end_to_end:
        read = EndToEnd("yolov8_seg", heads, context, normalised=options.normalised, extra=masks.maps)
    else:
        read = make_heads("yolov8_seg", options, heads, context, extra=masks.maps, extra_role="coefficients")
    return _Yolov8Seg(read, masks, Finisher(context, suppress=not options.end_to_end), context)


class _Yolov8Seg:
    """A `Decoder`."""

    def __init__(self, read: DenseHeads | EndToEnd, masks: MaskMaker, finish: Finisher, context: DecodeContext) -> None:
        self._read = read
        self._masks = masks
        self._finish = finish
        self._context = context

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the outputs are of other sizes than they should be.
            InferenceError: the model gives no numbers.
        """
        found = self._read.find(tensors, transform.input_size)
        if found is None or found.extra is None:
            return replace(nothing(self._context), masks=())
        objects, chosen = self._finish.choose(found.xyxy, found.confidence, found.class_id, transform)
        return replace(objects, masks=self._masks(tensors, found.extra[chosen], objects.xyxy, transform))
