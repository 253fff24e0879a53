"""The end of every detection decoder: candidates in input pixels become the frame's detections."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.decode.base import DecodeContext
from edgevision.geometry import area_xyxy, clip_xyxy, nms, to_frame_xyxy
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


def wanted(confidence: NDArray[Any], class_id: NDArray[Any], context: DecodeContext) -> NDArray[np.bool_]:
    """Which candidates (n,) are of a wanted class and reach its threshold."""
    if not context.class_confidence:
        enough: NDArray[np.bool_] = confidence >= context.confidence
    else:
        threshold = np.full(len(confidence), context.confidence, np.float32)
        for single, value in context.class_confidence.items():
            threshold[class_id == single] = value
        enough = confidence >= threshold
    if context.classes is not None:
        enough &= np.isin(class_id, list(context.classes))
    return enough


def finish(
    xyxy: NDArray[Any],
    confidence: NDArray[Any],
    class_id: NDArray[Any],
    *,
    context: DecodeContext,
    transform: ImageTransform,
    suppress: bool = True,
) -> Detections:
    """Thresholds, the way back to frame pixels, NMS, order and number.

    Boxes that are not finite, or of which nothing lies within what the model saw, are dropped. Overlaps are compared
    before boxes are clipped, as all reference implementations do.

    Args:
        xyxy: (n, 4) in input pixels.
        confidence: (n,)
        class_id: (n,)
        context: thresholds, labels and limits.
        transform: how the frame became the input.
        suppress: whether overlapping boxes of one class are still to be removed.
    """
    keep = np.flatnonzero(wanted(confidence, class_id, context))
    if not keep.size:
        return nothing(context)
    with np.errstate(over="ignore", invalid="ignore"):
        frame = to_frame_xyxy(xyxy[keep], transform)
        clipped = clip_xyxy(frame, transform.region)
        good = np.flatnonzero(np.isfinite(frame).all(axis=1) & np.isfinite(confidence[keep]) & (area_xyxy(clipped) > 0))
    keep, frame, clipped = keep[good], frame[good], clipped[good]
    confidence, class_id = confidence[keep].astype(np.float32), class_id[keep].astype(np.int32)
    if suppress:
        chosen = nms(frame, confidence, class_id, iou=context.iou, max_detections=context.max_detections)
    else:
        chosen = np.argsort(-confidence, kind="stable")[: context.max_detections]
    return Detections(
        xyxy=clipped[chosen], confidence=confidence[chosen], class_id=class_id[chosen], labels=context.labels
    )


def nothing(context: DecodeContext) -> Detections:
    """No detections."""
    xyxy, confidence, class_id = _NOTHING
    return Detections(xyxy=xyxy, confidence=confidence, class_id=class_id, labels=context.labels)
