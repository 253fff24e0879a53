"""Classification: top-1, top-5, each class's precision, recall and F1 (scikit-learn), and who is taken for whom.

A model that knows more classes than the dataset may answer with one of those: that is a wrong answer, counted in a last
column of the confusion matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.host.evaluate.answers import OTHER
from edgevision.types import Classifications

TOP_K = 5
OTHER_NAME = "(another class)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRates:
    """One class, one against the rest."""

    label: str
    pictures: int
    precision: float
    """0 where the model never names the class."""
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassificationResult:
    """Everything that is said of a classifier."""

    labels: tuple[str, ...]
    """The dataset's."""
    top1: float
    top5: float | None
    """None where the model has no more than five classes: it would always be 1."""
    balanced_accuracy: float
    """The mean of the classes' recalls: what an unbalanced set does not flatter."""
    majority_baseline: float
    """What always naming the most frequent class would score."""
    classes: tuple[ClassRates, ...]
    """Those that have pictures."""
    confusion: NDArray[np.int64]
    """(classes, classes + 1): row is the truth, column the answer; the last is another class, or none."""
    answered: float | None
    """Share of the pictures whose best answer reaches the model's own threshold; None where it has none."""
    answered_top1: float | None
    """Top-1 of those."""
    right: NDArray[np.bool_]
    """(pictures,)"""
    said: NDArray[np.int64]
    """(pictures,) the best answer's label id, or OTHER."""


def score(
    truth: NDArray[np.int64],
    answers: Sequence[Classifications],
    labels: tuple[str, ...],
    *,
    model_classes: int,
    own_threshold: float,
) -> ClassificationResult:
    """Score answers (class ids are label ids) against the labels (pictures,) of the same pictures.

    Raises:
        PluginError: scikit-learn is not installed.
    """
    metrics = registry.require("sklearn.metrics", package="edgevision[host]", purpose="classification metrics")
    count = len(labels)
    said = np.array([int(found.class_id[0]) if len(found) else OTHER for found in answers], np.int64)
    sureness = np.array([float(found.confidence[0]) if len(found) else 0.0 for found in answers])
    right = said == truth
    among = np.array([label in found.class_id[:TOP_K] for label, found in zip(truth, answers, strict=True)], np.bool_)
    column = np.where(said == OTHER, count, said)
    confusion = metrics.confusion_matrix(truth, column, labels=np.arange(count + 1))[:count]
    pictures = np.bincount(truth, minlength=count)
    present = np.flatnonzero(pictures)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, column, labels=present, zero_division=0.0)
    sure = sureness >= np.float32(own_threshold)
    return ClassificationResult(
        labels=labels,
        top1=float(right.mean()),
        top5=float(among.mean()) if model_classes > TOP_K else None,
        balanced_accuracy=float(np.mean(recall)),
        majority_baseline=float(pictures.max() / len(truth)),
        classes=tuple(
            ClassRates(
                label=labels[label_id],
                pictures=int(pictures[label_id]),
                precision=float(precision[row]),
                recall=float(recall[row]),
                f1=float(f1[row]),
            )
            for row, label_id in enumerate(present)
        ),
        confusion=np.asarray(confusion, np.int64),
        answered=float(sure.mean()) if own_threshold > 0 else None,
        answered_top1=float(right[sure].mean()) if own_threshold > 0 and sure.any() else None,
        right=right,
        said=said,
    )


def confused_pairs(
    confusion: NDArray[np.int64], labels: tuple[str, ...], most: int
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: truth, answer, how often, and which share of the truth's pictures."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    names = (*labels, OTHER_NAME)
    rows = [np.unravel_index(flat, wrong.shape) for flat in order]
    return [
        (names[row], names[column], int(wrong[row, column]), float(wrong[row, column] / confusion[row].sum()))
        for row, column in rows
        if wrong[row, column]
    ]


def resampled_top1(right: NDArray[np.bool_], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """(resamples,) top-1 of resampled pictures; `weights` (resamples, pictures) says how often each was drawn."""
    top1: NDArray[np.float64] = weights @ right / weights.sum(axis=1)
    return top1
