"""What two models find in the same picture, and whether it is the same.

Labels are compared by name where both models carry names. A detection counts where it reaches its model's own threshold;
its partner in the other model may lie as low as half of that, so that 0.301 against 0.299 is no disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevision.geometry import iou_xyxy
from edgevision.types import Classifications, Detections, Embedding, Predictions, Segmentation, label_of

MATCH_IOU = 0.5
"""Boxes that overlap less are not the same object."""
SAME_DIRECTION = 0.99
"""Cosine from which on two embeddings are the same."""
SLACK = 0.5
"""Share of its own threshold that a partner must reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One picture."""

    counted: int
    """Predictions that count, of both models: a pair is two."""
    agreed: int
    """Of these: with a partner of the same label."""
    pairs: int
    """Predictions that were paired, whatever their label."""
    same_label: int
    """Of the pairs."""
    iou: float
    """Summed over the pairs; divided by them, the mean."""
    least_iou: float
    """Of the pairs; 1 where there is none."""
    confidence: float
    """Absolute difference, summed over the pairs."""
    most_confidence: float
    """Its largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionDifference:
    """All pictures."""

    counted: int
    agreement: float | None
    """Share of the predictions that the other model has too, with the same label; None where neither found anything."""
    pairs: int
    label_agreement: float | None
    """Share of the pairs."""
    mean_iou: float | None
    """Of the pairs' boxes; of the class maps in segmentation; None in classification and of embeddings."""
    least_iou: float | None
    mean_confidence: float | None
    """Mean absolute difference of the pairs' confidence; of embeddings, 1 less the cosine."""
    most_confidence: float | None


def compare(first: Predictions, second: Predictions, thresholds: tuple[float, float]) -> Agreement:
    """Compare two models' answers to one picture; `thresholds` are their own."""
    if isinstance(first, Detections) and isinstance(second, Detections):
        return _detections(first, second, thresholds)
    if isinstance(first, Classifications) and isinstance(second, Classifications):
        return _classifications(first, second)
    if isinstance(first, Segmentation) and isinstance(second, Segmentation):
        return _segmentations(first, second)
    if isinstance(first, Embedding) and isinstance(second, Embedding):
        return _embeddings(first, second)
    raise TypeError(f"cannot compare {type(first).__name__} with {type(second).__name__}")


def summarise(parts: Sequence[Agreement], *, boxes: bool) -> PredictionDifference:
    """All pictures together; `boxes` says whether an overlap means anything."""
    counted, pairs = sum(part.counted for part in parts), sum(part.pairs for part in parts)
    paired = [part for part in parts if part.pairs]
    return PredictionDifference(
        counted=counted,
        agreement=sum(part.agreed for part in parts) / counted if counted else None,
        pairs=pairs,
        label_agreement=sum(part.same_label for part in parts) / pairs if pairs else None,
        mean_iou=sum(part.iou for part in parts) / pairs if pairs and boxes else None,
        least_iou=min(part.least_iou for part in paired) if paired and boxes else None,
        mean_confidence=sum(part.confidence for part in parts) / pairs if pairs else None,
        most_confidence=max(part.most_confidence for part in paired) if paired else None,
    )


def _detections(first: Detections, second: Detections, thresholds: tuple[float, float]) -> Agreement:
    overlaps = np.asarray(iou_xyxy(first.xyxy, second.xyxy), np.float64)
    same = _same_labels(first, second)
    sure = [
        part.confidence >= np.float32(threshold) for part, threshold in zip((first, second), thresholds, strict=True)
    ]
    # A pair needs one that counts; the same label is worth more than any overlap.
    worth = np.where(sure[0][:, None] | sure[1][None, :], overlaps + same, 0)
    worth[overlaps < MATCH_IOU] = 0
    rows, columns = _greedy(worth)
    difference = np.abs(first.confidence[rows] - second.confidence[columns])
    agreeing = same[rows, columns]
    return Agreement(
        counted=int(sure[0].sum() + sure[1].sum()),
        agreed=int(sure[0][rows[agreeing]].sum() + sure[1][columns[agreeing]].sum()),
        pairs=len(rows),
        same_label=int(agreeing.sum()),
        iou=float(overlaps[rows, columns].sum()),
        least_iou=float(overlaps[rows, columns].min(initial=1.0)),
        confidence=float(difference.sum()),
        most_confidence=float(difference.max(initial=0.0)),
    )


def _same_labels(first: Detections, second: Detections) -> NDArray[np.bool_]:
    """(n, m) whether two detections have the same label."""
    if first.labels == second.labels or not first.labels or not second.labels:
        same: NDArray[np.bool_] = first.class_id[:, None] == second.class_id[None, :]
        return same
    names = [[label_of(part.labels, number) for number in part.class_id.tolist()] for part in (first, second)]
    return np.array([[one == two for two in names[1]] for one in names[0]], np.bool_).reshape(len(first), len(second))


def _greedy(worth: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The most worthy pair first, each row and column once; pairs worth 0 are none."""
    left = worth.copy()
    rows, columns = [], []
    while left.size and left.max() > 0:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        rows.append(int(row))
        columns.append(int(column))
        left[row, :] = 0
        left[:, column] = 0
    return np.array(rows, np.intp), np.array(columns, np.intp)


def _classifications(first: Classifications, second: Classifications) -> Agreement:
    if not len(first) or not len(second):
        same = len(first) == len(second)
        return Agreement(
            counted=2, agreed=2 * same, pairs=0, same_label=0, iou=0, least_iou=1, confidence=0, most_confidence=0
        )
    if first.labels and second.labels:
        same = label_of(first.labels, int(first.class_id[0])) == label_of(second.labels, int(second.class_id[0]))
    else:
        same = bool(first.class_id[0] == second.class_id[0])
    difference = abs(float(first.confidence[0]) - float(second.confidence[0]))
    return Agreement(
        counted=2,
        agreed=2 * same,
        pairs=1,
        same_label=int(same),
        iou=1,
        least_iou=1,
        confidence=difference,
        most_confidence=difference,
    )


def _embeddings(first: Embedding, second: Embedding) -> Agreement:
    """Two vectors agree where they point the same way; the difference of confidence is 1 less their cosine."""
    one, two = (part.vector.astype(np.float64) for part in (first, second))
    lengths = float(np.linalg.norm(one) * np.linalg.norm(two))
    cosine = float(one @ two) / lengths if one.shape == two.shape and lengths else 0.0
    same = cosine >= SAME_DIRECTION
    return Agreement(
        counted=2,
        agreed=2 * same,
        pairs=1,
        same_label=int(same),
        iou=1,
        least_iou=1,
        confidence=1 - cosine,
        most_confidence=1 - cosine,
    )


def _segmentations(first: Segmentation, second: Segmentation) -> Agreement:
    """Pixels are the predictions."""
    same = int((first.class_map == second.class_map).sum())
    pixels = first.class_map.size
    ids = np.union1d(first.class_map, second.class_map)
    ious = [
        ((first.class_map == number) & (second.class_map == number)).sum()
        / ((first.class_map == number) | (second.class_map == number)).sum()
        for number in ids
    ]
    return Agreement(
        counted=2 * pixels,
        agreed=2 * same,
        pairs=pixels,
        same_label=same,
        iou=float(np.mean(ious)) * pixels,
        least_iou=float(min(ious)),
        confidence=0,
        most_confidence=0,
    )
