"""Two models on the same pictures: the difference, how sure it is, and where it comes from.

The interval is a paired bootstrap (Efron & Tibshirani 1993): pictures are drawn with replacement, both models are scored on
the same draw, and the middle 95 % of the differences are told. An interval that holds 0 is no proof of a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgevision.host.evaluate.answers import PixelCounts
from edgevision.host.evaluate.classification import ClassificationResult, resampled_top1
from edgevision.host.evaluate.coco import resampled_ap
from edgevision.host.evaluate.detection import DetectionResult
from edgevision.host.evaluate.run import Evaluation, figure_name
from edgevision.host.evaluate.segmentation import picture_iou, resampled_miou

_WORST = 10
_WORK = 30_000_000
"""Detections times resamples: about ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """One class in both models."""

    label: str
    before: float | None
    """The first model's AP, F1 or IoU."""
    after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """A picture that the second model does worse on."""

    picture: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The second model against the first; a difference is the second less the first."""

    name: str
    """Of the figure that was compared."""
    difference: float | None
    low: float | None
    high: float | None
    """The 95 % interval; None where there was nothing to measure."""
    resamples: int
    class_figure: str
    classes: tuple[ClassChange, ...]
    picture_figure: str
    worse: tuple[Worse, ...]
    """The worst first, at most ten."""
    worse_count: int
    better_count: int
    """Pictures."""

    @property
    def proved(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def compare(first: Evaluation, second: Evaluation, *, seed: int = 0) -> Comparison:
    """Compare two models that saw the same pictures."""
    pictures = len(first.samples)
    resamples = _resamples(first, second)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)
    differences = _resampled(second, weights) - _resampled(first, weights)
    differences = differences[np.isfinite(differences)]
    low, high = np.percentile(differences, (2.5, 97.5)).tolist() if len(differences) else (None, None)
    before, after = _by_picture(first), _by_picture(second)
    change = after - before
    order = [int(row) for row in np.argsort(change, kind="stable") if change[row] < 0]
    one, two = first.figure, second.figure
    return Comparison(
        name=figure_name(first.result),
        difference=None if one is None or two is None else two - one,
        low=low,
        high=high,
        resamples=resamples,
        class_figure=_class_figure(first),
        classes=_classes(first, second),
        picture_figure=_picture_figure(first),
        worse=tuple(
            Worse(picture=first.samples[row].name, before=float(before[row]), after=float(after[row]))
            for row in order[:_WORST]
        ),
        worse_count=len(order),
        better_count=int((change > 0).sum()),
    )


def _resamples(*evaluations: Evaluation) -> int:
    """1000, fewer where that would take minutes, never below 200."""
    found = max(
        (
            sum(len(single.confidence) for single in evaluation.result.coco.matches)
            for evaluation in evaluations
            if isinstance(evaluation.result, DetectionResult)
        ),
        default=0,
    )
    return max(200, min(1000, _WORK // max(found, 1)))


def _resampled(evaluation: Evaluation, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    result = evaluation.result
    if isinstance(result, DetectionResult):
        return resampled_ap(result.coco.matches, weights)
    if isinstance(result, ClassificationResult):
        return resampled_top1(result.right, weights)
    return resampled_miou(cast("Sequence[PixelCounts]", evaluation.answers), weights)


def _by_picture(evaluation: Evaluation) -> NDArray[np.float64]:
    result = evaluation.result
    if isinstance(result, DetectionResult):
        return result.picture_f1
    if isinstance(result, ClassificationResult):
        return result.right.astype(np.float64)
    return np.array([picture_iou(answer) for answer in cast("Sequence[PixelCounts]", evaluation.answers)])


def _picture_figure(evaluation: Evaluation) -> str:
    if isinstance(evaluation.result, DetectionResult):
        return "F1 at each model's own threshold"
    return "right" if isinstance(evaluation.result, ClassificationResult) else "IoU"


def _class_figure(evaluation: Evaluation) -> str:
    if isinstance(evaluation.result, DetectionResult):
        return "AP"
    return "F1" if isinstance(evaluation.result, ClassificationResult) else "IoU"


def _classes(first: Evaluation, second: Evaluation) -> tuple[ClassChange, ...]:
    """Classes that have something to find, the most worsened first."""
    changes = [
        ClassChange(label=label, before=before, after=after)
        for (label, before), (_, after) in zip(_by_class(first), _by_class(second), strict=True)
        if before is not None or after is not None
    ]
    return tuple(sorted(changes, key=lambda change: ((change.after or 0) - (change.before or 0), change.label)))


def _by_class(evaluation: Evaluation) -> list[tuple[str, float | None]]:
    """Both models saw the same pictures, so the classes and their order are the same."""
    result = evaluation.result
    if isinstance(result, DetectionResult):
        return [(single.label, single.ap) for single in result.classes]
    if isinstance(result, ClassificationResult):
        return [(single.label, single.f1) for single in result.classes]
    pairs = zip(result.labels, result.class_iou.tolist(), strict=True)
    return [(label, None if np.isnan(iou) else float(iou)) for label, iou in pairs]
