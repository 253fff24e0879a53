"""What must be said beside a figure, so that nobody reads more into it than it holds."""

from __future__ import annotations

from collections.abc import Sequence

from edgevision.host.evaluate.classification import ClassificationResult
from edgevision.host.evaluate.detection import DetectionResult
from edgevision.host.evaluate.run import Evaluation

_FEW_PICTURES = 50
_FEW_OBJECTS = 10
_UNEVEN = 5
"""Times as many pictures or objects in the largest class as in the smallest: unbalanced."""
_NAMED = 5


def remarks(evaluation: Evaluation) -> list[str]:
    """One line for each thing that weakens or bends the figures."""
    said = []
    if len(evaluation.samples) < _FEW_PICTURES:
        said.append(f"only {len(evaluation.samples)} pictures: the figures may be far from the truth")
    if evaluation.unscored:
        said.append(f"{evaluation.unscored} detections are of classes that the dataset has not; they are not scored")
    if isinstance(evaluation.result, DetectionResult):
        said += _of_detection(evaluation.result)
    elif isinstance(evaluation.result, ClassificationResult):
        said += _of_classification(evaluation.result)
    return said


def _of_detection(result: DetectionResult) -> list[str]:
    said = []
    objects = {single.label: single.objects for single in result.classes}
    empty = [label for label, count in objects.items() if not count]
    few = [label for label, count in objects.items() if 0 < count < _FEW_OBJECTS]
    if empty:
        said.append(f"{_some(empty)} of {len(objects)} classes have no object here and no figure")
    if few:
        said.append(
            f"{_some(few)} of {len(objects)} classes have fewer than {_FEW_OBJECTS} objects: their AP is chance"
        )
    line = _imbalance({label: count for label, count in objects.items() if count}, "objects")
    return said + ([line] if line else [])


def _of_classification(result: ClassificationResult) -> list[str]:
    said = []
    pictures = {single.label: single.pictures for single in result.classes}
    empty = len(result.labels) - len(pictures)
    if empty:
        said.append(f"{empty} of {len(result.labels)} classes have no picture here and no figure")
    few = [label for label, count in pictures.items() if count < _FEW_OBJECTS]
    if few:
        said.append(
            f"{_some(few)} of {len(result.labels)} classes have fewer than {_FEW_OBJECTS} pictures: their own figures are "
            "chance"
        )
    line = _imbalance(pictures, "pictures")
    if line:
        said.append(
            f"{line}; always naming the most frequent class would score {result.majority_baseline:.3f}, so read the "
            f"balanced accuracy ({result.balanced_accuracy:.3f})"
        )
    return said


def _imbalance(counts: dict[str, int], what: str) -> str | None:
    if len(counts) < 2:
        return None
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] < _UNEVEN * counts[least]:
        return None
    share = counts[most] / sum(counts.values())
    return (
        f"the classes are unbalanced: {most!r} has {counts[most]} of {sum(counts.values())} {what} ({share:.0%}), "
        f"{least!r} has {counts[least]}"
    )


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} ({', '.join(names[:_NAMED])}{more})"
