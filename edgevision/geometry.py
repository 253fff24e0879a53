"""Boxes: IoU, the one NMS, and the way between frame pixels and input pixels.

One NMS for all decoders, because every family that brings its own also brings its own mistakes. Boxes are corner boxes
(left, top, right, bottom), float32; nothing here knows of tensors, models or pictures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.types import BoxXyxy, ImageTransform

_BLOCK = 128
"""Candidates compared at a time: 128 x 128 float32 stay in the level 2 cache (measured against 32 to 256)."""


def cxcywh_to_xyxy(cxcywh: NDArray[Any]) -> NDArray[Any]:
    """Boxes (n, 4) of centre, width and height as corner boxes (n, 4)."""
    half = cxcywh[:, 2:] / 2
    return np.concatenate((cxcywh[:, :2] - half, cxcywh[:, :2] + half), axis=1)


def xyxy_to_cxcywh(xyxy: NDArray[Any]) -> NDArray[Any]:
    """Corner boxes (n, 4) as centre, width and height (n, 4)."""
    return np.concatenate(((xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]), axis=1)


def area_xyxy(xyxy: NDArray[Any]) -> NDArray[Any]:
    """Areas (n,); 0 for a box that is turned inside out."""
    width, height = xyxy[:, 2] - xyxy[:, 0], xyxy[:, 3] - xyxy[:, 1]
    area: NDArray[Any] = np.maximum(width, 0) * np.maximum(height, 0)
    return area


def clip_xyxy(xyxy: NDArray[Any], region: BoxXyxy) -> NDArray[Any]:
    """Boxes (n, 4) cut off at the edges of `region`."""
    left, top, right, bottom = region
    low = np.array((left, top, left, top), xyxy.dtype)
    high = np.array((right, bottom, right, bottom), xyxy.dtype)
    clipped: NDArray[Any] = np.minimum(np.maximum(xyxy, low), high)
    return clipped


def to_frame_xyxy(xyxy: NDArray[Any], transform: ImageTransform) -> NDArray[np.float32]:
    """Boxes (n, 4) in input pixels as boxes in frame pixels; not clipped."""
    offset, scale = _four(transform.offset), _four(transform.scale)
    return ((xyxy - offset) / scale).astype(np.float32)


def to_input_xyxy(xyxy: NDArray[Any], transform: ImageTransform) -> NDArray[np.float32]:
    """Boxes (n, 4) in frame pixels as boxes in input pixels; the inverse of `to_frame_xyxy`."""
    return (xyxy * _four(transform.scale) + _four(transform.offset)).astype(np.float32)


def _four(pair: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(pair * 2)


def iou_xyxy(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Intersection over union of every box of `first` (n, 4) with every box of `second` (m, 4): (n, m), 0-1.

    Two boxes without any area have an IoU of 0.
    """
    intersection = _intersection(_Corners(first), _Corners(second))
    union = area_xyxy(first)[:, None] + area_xyxy(second)[None, :] - intersection
    iou: NDArray[Any] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return iou


def nms(
    xyxy: NDArray[Any],
    confidence: NDArray[Any],
    class_id: NDArray[Any],
    *,
    iou: float,
    max_detections: int,
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression within each class: indices of the boxes to keep, most confident first.

    The standard algorithm, exactly: the most confident box is kept, and all boxes of its class whose IoU with it is
    above `iou` go; then the next. Of two equally confident boxes the earlier one counts as more confident. The work is
    bounded by `max_detections` x n pairs, done in blocks, so that no n x n matrix is ever made.

    Args:
        xyxy: (n, 4) corner boxes, finite.
        confidence: (n,)
        class_id: (n,)
        iou: boxes of one class that overlap more than this are one object.
        max_detections: how many to keep at most, over all classes.

    Returns:
        (k,) indices into `xyxy`, k <= max_detections.
    """
    order = np.argsort(-confidence, kind="stable")
    if max_detections < 1:
        return order[:0]
    boxes, classes = np.asarray(xyxy, np.float32)[order], class_id[order]
    kept: list[int] = []
    # Coordinates near float32's limit overflow to an infinite area; such boxes suppress nothing and are no error here.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(order), _BLOCK):
            stop = min(start + _BLOCK, len(order))
            block, block_classes = _Corners(boxes[start:stop]), classes[start:stop]
            gone: NDArray[np.bool_] = np.zeros(stop - start, np.bool_)
            if kept:
                earlier = _Corners(boxes[kept])
                gone |= _overlaps(earlier, block, classes[kept], block_classes, iou).any(axis=0)
            overlaps = _overlaps(block, block, block_classes, block_classes, iou)
            for row in range(stop - start):
                if not gone[row]:
                    kept.append(start + row)
                    if len(kept) >= max_detections:
                        return order[kept]
                    gone |= overlaps[row]
    return order[np.array(kept, np.intp)]


class _Corners:
    """Boxes as four contiguous columns and their areas."""

    __slots__ = ("area", "x0", "x1", "y0", "y1")

    def __init__(self, xyxy: NDArray[Any]) -> None:
        self.x0, self.y0, self.x1, self.y1 = np.ascontiguousarray(xyxy.T)
        self.area = area_xyxy(xyxy)


def _intersection(first: _Corners, second: _Corners) -> NDArray[Any]:
    """Areas that each of n boxes shares with each of m: (n, m)."""
    width: NDArray[Any] = np.minimum(first.x1[:, None], second.x1)
    width -= np.maximum(first.x0[:, None], second.x0)
    height = np.minimum(first.y1[:, None], second.y1)
    height -= np.maximum(first.y0[:, None], second.y0)
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    width *= height
    return width


def _overlaps(
    first: _Corners, second: _Corners, first_class: NDArray[Any], second_class: NDArray[Any], iou: float
) -> NDArray[np.bool_]:
    """Which pairs (n, m) are of one class with an IoU above `iou`; the division is saved by comparing areas."""
    intersection = _intersection(first, second)
    union = first.area[:, None] + second.area
    union -= intersection
    union *= np.float32(iou)
    overlapping: NDArray[np.bool_] = intersection > union
    overlapping &= first_class[:, None] == second_class
    return overlapping
