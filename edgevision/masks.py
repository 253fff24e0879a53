"""The masks of a segmentation as the config wants them in results: run lengths, polygons, or none; always bounded in size."""

from __future__ import annotations

from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.messages import MAX_MASK_BYTES, SegmentItem, segment_items
from edgevision.types import Predictions, Segmentation

Encoding: TypeAlias = Literal["rle", "polygons", "none"]

_TOLERANCES_PX = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""How far an outline may leave out its corners; the first whose outlines are small enough is taken."""
_LEAST_NUMBER, _LEAST_OUTLINE = len("0.0, "), len("[0.0, 0.0], ")
"""Bytes."""


def encode(
    found: Predictions, *, encoding: Encoding = "rle", max_bytes: int = MAX_MASK_BYTES
) -> list[SegmentItem] | None:
    """The items of a segmentation; None for other predictions.

    Masks that take more than `max_bytes` together become coarser: run lengths of every second pixel, every fourth ...;
    outlines with fewer corners. What does not even then fit is left out, and the item has none.
    """
    if not isinstance(found, Segmentation):
        return None
    items = segment_items(found, rle=encoding == "rle", max_bytes=max_bytes)
    if encoding != "polygons":
        return items
    outlines = [_outlines(found.class_map, item) for item in items]
    for tolerance in _TOLERANCES_PX:
        # An outline keeps one corner at least: where there are too many, none is thinned out in vain.
        if sum(map(len, outlines)) * _LEAST_OUTLINE > max_bytes:
            break
        thinned = [[cv2.approxPolyDP(outline, tolerance, True).ravel() for outline in parts] for parts in outlines]
        if sum(len(corners) for parts in thinned for corners in parts) * _LEAST_NUMBER > max_bytes:
            continue
        polygons = [[[float(value) for value in corners.tolist()] for corners in parts] for parts in thinned]
        if len(str(polygons)) <= max_bytes:
            return [item.model_copy(update={"polygons": parts}) for item, parts in zip(items, polygons, strict=True)]
    return items


def _outlines(class_map: NDArray[np.uint8], item: SegmentItem) -> list[NDArray[np.int32]]:
    """The outlines of a class, holes included, each (n, 1, 2) x, y in pixels of the frame."""
    left, top, right, bottom = (int(edge) for edge in item.xyxy)
    inside = (class_map[top:bottom, left:right] == item.class_id).view(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    return [np.asarray(outline, np.int32) for outline in found]
