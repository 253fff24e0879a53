"""YOLO-pose (YOLOv8-pose, YOLO11-pose, YOLO26-pose): boxes, class scores and the keypoints of each object.

The role `predictions` [1, 4 + classes + 3 * keypoints, cells] has, behind what `yolov8` knows, x, y and confidence of each
keypoint, decoded: in input pixels, or from 0 to 1 of its sides where boxes are `normalised`. In a tensor of their own they have
the role `keypoints`. With `end_to_end` the rows are finished objects [1, n, 6 + 3 * keypoints], as YOLO26 gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision.decode._dense import DenseHeads
from edgevision.decode._detections import Finisher, nothing
from edgevision.decode._end_to_end import EndToEnd
from edgevision.decode._yolo_heads import YoloOptions, make_heads
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec


class Options(YoloOptions):
    """As Ultralytics exports it to ONNX."""

    keypoints: int = Field(default=17, ge=1, le=1000)
    """How many keypoints an object has; COCO's people have 17."""
    keypoint_values: Literal[2, 3] = 3
    """Numbers of each keypoint: x, y and its confidence, or x and y alone; these are as sure as their object."""
    end_to_end: bool = False
    """Whether `predictions` are finished objects; of the head's options only `normalised` counts then."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of `predictions`, or of `boxes`, `scores` and `keypoints`, as `yolov8`.

    Raises:
        ModelError: a role is missing or one too many, or a shape, type or the activation does not fit.
    """
    extra = options.keypoints * options.keypoint_values
    read: DenseHeads | EndToEnd
    if options.end_to_end:
        read = EndToEnd("yolov8_pose", outputs, context, normalised=options.normalised, extra=extra)
    else:
        read = make_heads("yolov8_pose", options, outputs, context, extra=extra, extra_role="keypoints")
    return _Yolov8Pose(options, read, context)


class _Yolov8Pose:
    """A `Decoder`."""

    def __init__(self, options: Options, read: DenseHeads | EndToEnd, context: DecodeContext) -> None:
        self._read = read
        self._context = context
        self._normalised = options.normalised
        self._shape = (options.keypoints, options.keypoint_values)
        self._finish = Finisher(context, suppress=not options.end_to_end)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the outputs are of other sizes than they should be.
            InferenceError: the model gives no numbers.
        """
        found = self._read.find(tensors, transform.input_size)
        if found is None or found.extra is None:
            return replace(nothing(self._context), keypoints=np.empty((0, self._shape[0], 3), np.float32))
        objects, chosen = self._finish.choose(found.xyxy, found.confidence, found.class_id, transform)
        return replace(objects, keypoints=self._keypoints(found.extra[chosen], objects.confidence, transform))

    def _keypoints(
        self, values: NDArray[np.float32], confidence: NDArray[np.float32], transform: ImageTransform
    ) -> NDArray[np.float32]:
        """(n, k, 3): x, y in frame pixels, kept within what the model saw, and confidence; 0 for what is no number."""
        given = values.reshape(len(values), *self._shape)
        points = np.empty((*given.shape[:2], 3), np.float32)
        points[..., 2] = given[..., 2] if self._shape[1] == 3 else confidence[:, None]
        size = np.array(transform.input_size if self._normalised else (1, 1), np.float32)
        left, top, right, bottom = transform.region
        with np.errstate(over="ignore", invalid="ignore"):
            frame = (given[..., :2] * size - np.array(transform.offset)) / np.array(transform.scale)
            broken = ~np.isfinite(frame).all(axis=2) | ~np.isfinite(points[..., 2])
        points[..., :2] = np.where(np.isfinite(frame), frame, 0).clip((left, top), (right, bottom))
        points[..., 2] = np.where(broken, 0, points[..., 2]).clip(0, 1)
        return points
