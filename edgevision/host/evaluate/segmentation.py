"""Segmentation: intersection over union of each class's pixels, over all pictures together (as VOC and Cityscapes count)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.host.evaluate.answers import PixelCounts

UNLABELLED = 255
"""A mask's value for pixels that do not count."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentationResult:
    """Everything that is said of a segmenter."""

    labels: tuple[str, ...]
    class_iou: NDArray[np.float64]
    """(classes,) NaN where a class is neither labelled nor said."""
    class_pixels: NDArray[np.int64]
    """(classes,) labelled pixels."""
    mean_iou: float | None
    """Over the classes that are labelled or said."""
    pixel_accuracy: float | None


def count_pixels(said: NDArray[Any], true: NDArray[Any], classes: int) -> PixelCounts:
    """Count one picture.

    Args:
        said: (H, W) label ids; one outside 0 to classes - 1 is no class of the dataset, and wrong.
        true: (H, W) label ids, 255 where nothing is labelled.
        classes: how many the dataset has.

    Raises:
        ValueError: the two have not the same size, or a label id is above the classes.
    """
    if said.shape != true.shape:
        raise ValueError(f"the mask is {true.shape[1]}x{true.shape[0]}, the answer {said.shape[1]}x{said.shape[0]}")
    counted = true != UNLABELLED
    labels, answers = true[counted].astype(np.int64), said[counted].astype(np.int64)
    if labels.size and labels.max() >= classes:
        raise ValueError(f"a pixel of the mask is {labels.max()}; the dataset has classes 0 to {classes - 1}")
    inside = (answers >= 0) & (answers < classes)
    return PixelCounts(
        both=np.bincount(labels[labels == answers], minlength=classes),
        said=np.bincount(answers[inside], minlength=classes),
        true=np.bincount(labels, minlength=classes),
    )


def score(answers: Sequence[PixelCounts], labels: tuple[str, ...]) -> SegmentationResult:
    """Score counted pictures."""
    none = np.zeros(len(labels), np.int64)
    both = sum((answer.both for answer in answers), none)
    said = sum((answer.said for answer in answers), none)
    true = sum((answer.true for answer in answers), none)
    iou = iou_of(both, said, true)
    pixels = int(true.sum())
    return SegmentationResult(
        labels=labels,
        class_iou=iou,
        class_pixels=true,
        mean_iou=None if np.isnan(iou).all() else float(np.nanmean(iou)),
        pixel_accuracy=int(both.sum()) / pixels if pixels else None,
    )


def iou_of(both: NDArray[Any], said: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """IoU from counts of any shape; NaN where nothing was labelled or said."""
    union = said + true - both
    iou: NDArray[np.float64] = np.divide(both, union, out=np.full(np.shape(union), np.nan), where=union > 0)
    return iou


def picture_iou(answer: PixelCounts) -> float:
    """One picture's mean IoU; 1 where nothing is labelled."""
    iou = iou_of(answer.both, answer.said, answer.true)
    return 1.0 if np.isnan(iou).all() else float(np.nanmean(iou))


def resampled_miou(answers: Sequence[PixelCounts], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """(resamples,) mean IoU of resampled pictures; `weights` (resamples, pictures) says how often each was drawn."""
    both, said, true = (
        weights @ np.stack([getattr(answer, part) for answer in answers]) for part in ("both", "said", "true")
    )
    mean: NDArray[np.float64] = np.nanmean(iou_of(both, said, true), axis=1)
    return mean
