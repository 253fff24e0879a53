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
    intersection = _intersection(_Corners.of(first), _Corners.of(second))
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
    if max_detections < 1 or len(order) < 2:
        return order[: max(0, max_detections)]
    kept: list[int] = []
    # Coordinates near float32's limit overflow to an infinite area; such boxes suppress nothing and are no error here.
    with np.errstate(over="ignore", invalid="ignore"):
        boxes, classes = _Corners.of(np.asarray(xyxy, np.float32)[order]), class_id[order]
        for start in range(0, len(order), _BLOCK):
            part = slice(start, start + _BLOCK)
            block, block_classes = boxes[part], classes[part]
            gone: NDArray[np.bool_] = np.zeros(len(block_classes), np.bool_)
            if kept:
                gone |= _overlaps(boxes[kept], block, classes[kept], block_classes, iou).any(axis=0)
            overlaps = _overlaps(block, block, block_classes, block_classes, iou)
            for row in range(len(block_classes)):
                if not gone[row]:
                    kept.append(start + row)
                    if len(kept) >= max_detections:
                        return order[kept]
                    gone |= overlaps[row]
    return order[np.array(kept, np.intp)]


class _Corners:
    """Boxes as contiguous columns and their areas: one (5, n) array."""

    __slots__ = ("columns",)

    def __init__(self, columns: NDArray[Any]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, xyxy: NDArray[Any]) -> _Corners:
        columns = np.empty((5, len(xyxy)), xyxy.dtype)
        columns[:4] = xyxy.T
        columns[4] = area_xyxy(xyxy)
        return cls(columns)

    def __getitem__(self, part: slice | list[int]) -> _Corners:
        return _Corners(self.columns[:, part])


def _intersection(first: _Corners, second: _Corners) -> NDArray[Any]:
    """Areas that each of n boxes shares with each of m: (n, m)."""
    left, top, right, bottom = first.columns[:4, :, None]
    width: NDArray[Any] = np.minimum(right, second.columns[2])
    width -= np.maximum(left, second.columns[0])
    height = np.minimum(bottom, second.columns[3])
    height -= np.maximum(top, second.columns[1])
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    width *= height
    return width


def _overlaps(
    first: _Corners, second: _Corners, first_class: NDArray[Any], second_class: NDArray[Any], iou: float
) -> NDArray[np.bool_]:
    """Which pairs (n, m) are of one class with an IoU above `iou`; the division is saved by comparing areas."""
    intersection = _intersection(first, second)
    union = first.columns[4, :, None] + second.columns[4]
    union -= intersection
    union *= np.float32(iou)
    overlapping: NDArray[np.bool_] = intersection > union
    overlapping &= first_class[:, None] == second_class
    return overlapping
