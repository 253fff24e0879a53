"""DETR and its heirs: RT-DETR, D-FINE, RF-DETR, Deformable DETR. A fixed number of queries, each an object or none; no NMS.

A query has scores per class and a box as centre, width and height from 0 to 1 of the input. What the scores still need is told
by the activation: `sigmoid` for networks that were trained with a focal loss (RT-DETR, D-FINE, RF-DETR, Deformable DETR), where
each class of a query stands for itself; `softmax` for DETR itself, whose last class is "no object". Sources:
`post_process_object_detection` of RT-DETR and of DETR in transformers, and `PostProcess` of RF-DETR.

Exports with the authors' post-processor inside have a third output, the class of each row (role `classes`). Their scores are
ready, and their boxes are left, top, right, bottom in pixels of `orig_target_sizes`, which `input.constants` sets to the
input's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.decode._detections import Finisher, nothing, wanted
from edgevision.decode._ready import ReadyRows
from edgevision.decode._roles import check_labels, take_roles
from edgevision.decode._scores import Channels, ScoreFinder
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.geometry import cxcywh_to_xyxy
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec


class Options(registry.Options):
    """How the network's classes and boxes are meant."""

    multi_label: bool | None = None
    """Whether one query may be several classes at once, as in the authors' own post-processing. False: an object has one class.
    None: True where the confidence threshold is below 0.05, which only an evaluation sets. With softmax it is always one."""
    nms: bool = False
    """Whether overlapping boxes of one class are removed, which a network that was trained enough does not need."""
    class_offset: int = 0
    """Added to the class numbers of an export with its post-processor inside, to make line numbers of the labels (from 0)."""
    boxes: Literal["normalised", "pixels"] = "normalised"
    """What the boxes without post-processor are measured in: parts of the input's sides, or its pixels."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the roles `boxes` [1, n, 4] and `scores` [1, n, classes].

    With a third role, `classes` [1, n], `scores` is [1, n] and boxes are corners in pixels of the input.

    Raises:
        ModelError: a role is missing, or its shape, type, labels or the activation does not fit.
    """
    if "classes" in outputs:
        return ReadyRows("detr", outputs, context, class_offset=options.class_offset, suppress=options.nms)
    boxes, scores = take_roles("detr", outputs, ("boxes", "scores"))
    if len(boxes.shape) != 3 or boxes.shape[2] != 4 or boxes.shape[0] not in (1, -1):
        raise ModelError(f"decoder detr: output {boxes.name!r} (boxes) is {list(boxes.shape)}; [1, n, 4] is needed")
    rows = {scores.shape[1], boxes.shape[1]} - {-1}
    if len(scores.shape) != 3 or len(rows) > 1:
        raise ModelError(
            f"decoder detr: output {scores.name!r} (scores) is {list(scores.shape)}; [1, n, classes] is needed with the n "
            f"of {boxes.name!r} {list(boxes.shape)}; where the model names classes itself, give their role, `classes`"
        )
    no_object = context.activation == "softmax"
    if scores.shape[2] != -1:
        check_labels("detr", scores, scores.shape[2] - no_object, context)
    finder = _Softmax(scores, context) if no_object else _sigmoid_finder(options, scores, context)
    return _Queries(options, boxes, finder, context)


def _sigmoid_finder(options: Options, scores: TensorSpec, context: DecodeContext) -> ScoreFinder:
    channels = Channels("detr", "scores", scores, "channels_last")
    return ScoreFinder(channels, context, multi_label=options.multi_label)


class _Queries:
    """A `Decoder` of scores per class."""

    def __init__(
        self, options: Options, boxes: TensorSpec, finder: ScoreFinder | _Softmax, context: DecodeContext
    ) -> None:
        self._boxes = Channels("detr", "boxes", boxes, "channels_last")
        self._normalised = options.boxes == "normalised"
        self._find = finder
        self._context = context
        self._finish = Finisher(context, suppress=options.nms)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            InferenceError: the model gives no numbers.
        """
        queries, classes, confidence = self._find(tensors)
        if not queries.size:
            return nothing(self._context)
        boxes = self._boxes.take(tensors, queries)
        with np.errstate(over="ignore", invalid="ignore"):  # what has no measure is dropped
            if self._normalised:
                boxes = boxes * np.array(transform.input_size * 2, np.float32)
            xyxy = cxcywh_to_xyxy(boxes)
        return self._finish(xyxy, confidence, classes, transform)


class _Softmax:
    """Finds the best class of each query, where the last means "no object"."""

    def __init__(self, scores: TensorSpec, context: DecodeContext) -> None:
        self._scores = Channels("detr", "scores", scores, "channels_last")
        self._context = context

    def __call__(self, tensors: Tensors) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
        """Query, class and confidence of each candidate, (n,) each; raises InferenceError where there is no number."""
        real = self._scores.real(self._scores.view(tensors))
        with np.errstate(invalid="ignore"):
            powers = np.exp(real - real.max(axis=1, keepdims=True))
            probability = powers[:, :-1] / powers.sum(axis=1, keepdims=True)
        if probability.size and np.isnan(probability).all():
            raise InferenceError(f"output {self._scores.spec.name!r}: all scores are NaN: the model is broken")
        classes = probability.argmax(axis=1)
        confidence = probability[np.arange(len(classes)), classes]
        keep = wanted(confidence, classes, self._context)
        return keep, classes.take(keep), confidence.take(keep)
