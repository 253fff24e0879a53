"""The end of every detection decoder: candidates in input pixels become the frame's detections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.decode.base import DecodeContext
from edgevision.geometry import FEW, nms, nms_of_few
from edgevision.types import Detections, ImageTransform

_NOTHING = (np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
for _array in _NOTHING:
    _array.flags.writeable = False


def lowest_confidence(context: DecodeContext) -> float:
    """The lowest threshold of any class that is wanted: what is below can be dropped before its class is known."""
    own = context.class_confidence
    if context.classes is not None:
        return min((own.get(class_id, context.confidence) for class_id in context.classes), default=context.confidence)
    return min((context.confidence, *own.values()))


def wanted(confidence: NDArray[Any], class_id: NDArray[Any], context: DecodeContext) -> NDArray[np.intp]:
    """Indices of the candidates (n,) that are of a wanted class and reach its threshold, which NaN never does."""
    if not context.class_confidence:
        enough: NDArray[np.bool_] = confidence >= context.confidence
    else:
        threshold = np.full(len(confidence), context.confidence, np.float32)
        for single, value in context.class_confidence.items():
            threshold[class_id == single] = value
        enough = confidence >= threshold
    if context.classes is not None:
        enough &= np.isin(class_id, list(context.classes))
    return enough.nonzero()[0]


class Finisher:
    """The way back to frame pixels, NMS, order and number; what depends on the picture's size is kept between frames.

    Right after an inference the caches are cold and a call of numpy costs microseconds, so calls are what is saved here.
    """

    def __init__(self, context: DecodeContext, *, suppress: bool = True) -> None:
        """`suppress`: whether overlapping boxes of one class are still to be removed."""
        self._context = context
        self._suppress = suppress or context.class_agnostic
        self._transform: ImageTransform | None = None
        self._scale, self._shift, self._low, self._high = (np.empty(4, np.float32) for _ in range(4))
        self._plain = ((1.0, 1.0), (0.0, 0.0))
        """Scale and shift along x and y, from input pixels to the frame's."""

    def __call__(
        self, xyxy: NDArray[Any], confidence: NDArray[Any], class_id: NDArray[Any], transform: ImageTransform
    ) -> Detections:
        """The frame's detections: `choose` without the indices."""
        return self.choose(xyxy, confidence, class_id, transform)[0]

    def choose(
        self, xyxy: NDArray[Any], confidence: NDArray[Any], class_id: NDArray[Any], transform: ImageTransform
    ) -> tuple[Detections, NDArray[np.intp]]:
        """The frame's detections, and which candidate each of them was.

        What is not finite, and boxes of which nothing lies within what the model saw, are dropped. Overlaps are compared
        before boxes are clipped, as all reference implementations do.

        Args:
            xyxy: (n, 4) in input pixels.
            confidence: (n,), all of them above their thresholds.
            class_id: (n,)
            transform: how the frame became the input.

        Returns:
            The detections and their indices (k,) into the candidates, for what else a family knows of each.
        """
        if len(confidence) <= FEW:
            found, few = self.of_few(xyxy.tolist(), confidence.tolist(), class_id.tolist(), transform)
            return found, np.array(few, np.intp)
        keep: NDArray[np.intp] | None = None
        if transform is not self._transform:
            self._remember(transform)
        with np.errstate(over="ignore", invalid="ignore"):
            frame = xyxy * self._scale
            frame += self._shift
            clipped = np.minimum(np.maximum(frame, self._low), self._high)
            good = clipped[:, 2:] > clipped[:, :2]
            # A sum is finite only if every part is: one number tells of all boxes.
            sound = bool(good.all()) and math.isfinite(frame.sum() + confidence.sum())
        if not sound:
            keep = (good.all(axis=1) & np.isfinite(frame).all(axis=1) & np.isfinite(confidence)).nonzero()[0]
            frame, clipped, confidence, class_id = frame[keep], clipped[keep], confidence[keep], class_id[keep]
        context = self._context
        if self._suppress:
            kinds = np.zeros_like(class_id) if context.class_agnostic else class_id
            chosen = nms(frame, confidence, kinds, iou=context.iou, max_detections=context.max_detections)
        else:
            chosen = (-confidence).argsort(kind="stable")[: context.max_detections]
        found = Detections(
            xyxy=clipped.take(chosen, axis=0).astype(np.float32, copy=False),
            confidence=confidence.take(chosen).astype(np.float32, copy=False),
            class_id=class_id.take(chosen).astype(np.int32),
            labels=context.labels,
        )
        return found, chosen if keep is None else keep[chosen]

    def of_few(
        self,
        boxes: Sequence[Sequence[float]],
        confidence: Sequence[float],
        class_id: Sequence[int],
        transform: ImageTransform,
    ) -> tuple[Detections, list[int]]:
        """`choose` in plain numbers, for up to `FEW` candidates: sooner than a dozen calls of numpy."""
        if transform is not self._transform:
            self._remember(transform)
        (x_scale, y_scale), (x_shift, y_shift) = self._plain
        left, top, right, bottom = transform.region
        places, frame, clipped = [], [], []
        for place, (x1, y1, x2, y2) in enumerate(boxes):
            box = (x1 * x_scale + x_shift, y1 * y_scale + y_shift, x2 * x_scale + x_shift, y2 * y_scale + y_shift)
            if math.isfinite(sum(box) + confidence[place]):
                part = (
                    *(min(max(box[0], left), right), min(max(box[1], top), bottom)),
                    *(min(max(box[2], left), right), min(max(box[3], top), bottom)),
                )
                if part[2] > part[0] and part[3] > part[1]:
                    places.append(place)
                    frame.append(box)
                    clipped.append(part)
        context = self._context
        sure, classes = [confidence[place] for place in places], [class_id[place] for place in places]
        if self._suppress:
            kinds = [0] * len(classes) if context.class_agnostic else classes
            chosen = nms_of_few(frame, sure, kinds, iou=context.iou, max_detections=context.max_detections)
        else:
            chosen = sorted(range(len(sure)), key=sure.__getitem__, reverse=True)[: context.max_detections]
        if not chosen:
            return nothing(context), []
        found = Detections(
            xyxy=np.array([clipped[one] for one in chosen], np.float32),
            confidence=np.array([sure[one] for one in chosen], np.float32),
            class_id=np.array([classes[one] for one in chosen], np.int32),
            labels=context.labels,
        )
        return found, [places[one] for one in chosen]

    def _remember(self, transform: ImageTransform) -> None:
        scale, offset = np.array(transform.scale * 2), np.array(transform.offset * 2)
        self._scale, self._shift = (1 / scale).astype(np.float32), (-offset / scale).astype(np.float32)
        self._plain = (
            (1 / transform.scale[0], 1 / transform.scale[1]),
            (-transform.offset[0] / transform.scale[0], -transform.offset[1] / transform.scale[1]),
        )
        left, top, right, bottom = transform.region
        self._low = np.array((left, top, left, top), np.float32)
        self._high = np.array((right, bottom, right, bottom), np.float32)
        self._transform = transform


def nothing(context: DecodeContext) -> Detections:
    """No detections."""
    xyxy, confidence, class_id = _NOTHING
    return Detections(xyxy=xyxy, confidence=confidence, class_id=class_id, labels=context.labels)
