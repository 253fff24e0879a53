"""Pascal VOC's average precision of one class at one IoU, by every point (2010 on) or eleven (2007).

After the VOC development kit: detections of all pictures in order of confidence; each takes the object it overlaps most;
an object that is taken already makes it wrong; a difficult object makes it neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Points = Literal["every", "eleven"]


def average_precision(
    objects: Sequence[NDArray[np.float64]],
    found: Sequence[NDArray[np.float64]],
    confidence: Sequence[NDArray[np.float64]],
    *,
    iou: float = 0.5,
    points: Points = "every",
    difficult: Sequence[NDArray[np.bool_]] | None = None,
    inclusive: bool = False,
) -> float | None:
    """AP of one class; None where no object counts.

    Args:
        objects: for each picture (m, 4) xyxy of its objects.
        found: for each picture (n, 4) xyxy of its detections.
        confidence: for each picture (n,).
        iou: the least overlap of a hit.
        points: all recalls, or 0, 0.1 ... 1.
        difficult: for each picture (m,); objects that do not count.
        inclusive: right and bottom are the last pixel inside, as in VOC's files, and not the edge after it.
    """
    hard = [np.zeros(len(boxes), np.bool_) for boxes in objects] if difficult is None else difficult
    count = sum(int((~flags).sum()) for flags in hard)
    if not count:
        return None
    taken = [np.zeros(len(boxes), np.bool_) for boxes in objects]
    ranked = [(float(value), picture, row) for picture, part in enumerate(confidence) for row, value in enumerate(part)]
    verdicts = []
    for _, picture, row in sorted(ranked, key=lambda item: -item[0]):
        overlaps = _overlaps(objects[picture], found[picture][row], 1.0 if inclusive else 0.0)
        best = int(overlaps.argmax()) if len(overlaps) else 0
        hit = bool(len(overlaps)) and bool(overlaps[best] >= iou)
        if hit and hard[picture][best]:
            continue
        verdicts.append(hit and not taken[picture][best])
        if hit:
            taken[picture][best] = True
    right = np.cumsum(np.array(verdicts, np.bool_))
    precision = right / np.arange(1, len(right) + 1)
    return _every_point(right / count, precision) if points == "every" else _eleven_points(right / count, precision)


def _overlaps(objects: NDArray[np.float64], box: NDArray[np.float64], extra: float) -> NDArray[np.float64]:
    """IoU of one box (4,) with (m, 4); `extra` pixels belong to every length."""
    size = np.minimum(objects[:, 2:], box[2:]) - np.maximum(objects[:, :2], box[:2]) + extra
    shared = size.clip(0).prod(axis=1)
    areas = (objects[:, 2:] - objects[:, :2] + extra).prod(axis=1)
    union = areas + (box[2:] - box[:2] + extra).prod() - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def _every_point(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * np.diff(recall, prepend=0.0)).sum())


def _eleven_points(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    levels = [precision[recall >= tenth / 10 - 1e-12].max(initial=0.0) for tenth in range(11)]
    return float(np.mean(levels))
