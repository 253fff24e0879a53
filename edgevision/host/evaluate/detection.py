"""Detection: COCO's figures, and precision, recall and F1 of each class at the best threshold and at the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.host.dataset.base import Sample
from edgevision.host.evaluate.coco import ClassMatches, CocoScores, coco_scores
from edgevision.host.evaluate.voc import average_precision
from edgevision.types import Detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Right and wrong at one threshold, IoU 0.5."""

    threshold: float
    precision: float | None
    """None where nothing was found."""
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """One class of a detection dataset."""

    label: str
    objects: int
    """That count: neither crowds nor difficult ones."""
    ap: float | None
    ap50: float | None
    best: Rates | None
    """At the threshold with the best F1; None where the class has no object or nothing was ever found."""
    own: Rates | None
    """At the model's own threshold."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectionResult:
    """Everything that is said of a detector."""

    coco: CocoScores
    classes: tuple[ClassResult, ...]
    overall: Rates | None
    """All classes together at the model's own threshold."""
    best_overall: Rates | None
    """All classes together at the one threshold with the best F1."""
    everything: ClassMatches
    """All classes as one list; each was matched within its class."""
    voc_ap50: float | None
    """VOC's own figure, the mean over classes of AP by every point at IoU 0.5; None for other datasets."""
    picture_f1: NDArray[np.float64]
    """(pictures,) F1 at the model's own threshold; 1 where rightly nothing was found."""

    @property
    def ap(self) -> float | None:
        """The figure that stands for all."""
        return self.coco.summary["ap"]


def score(
    samples: Sequence[Sample],
    answers: Sequence[Detections],
    labels: tuple[str, ...],
    *,
    own_threshold: float,
    voc_too: bool = False,
) -> DetectionResult:
    """Score detections (class ids are label ids) against the labels of the same pictures."""
    coco = coco_scores(as_coco(samples, labels), as_results(answers))
    matches = coco.matches
    everything = _together(matches)
    return DetectionResult(
        coco=coco,
        classes=tuple(
            ClassResult(
                label=label,
                objects=int(matches[number].objects.sum()),
                ap=_value(coco.class_ap[number]),
                ap50=_value(coco.class_ap50[number]),
                best=best_rates(matches[number]),
                own=rates_at(matches[number], own_threshold),
            )
            for number, label in enumerate(labels)
        ),
        overall=rates_at(everything, own_threshold),
        best_overall=best_rates(everything),
        everything=everything,
        voc_ap50=voc_mean(samples, answers, len(labels)) if voc_too else None,
        picture_f1=_picture_f1(everything, own_threshold),
    )


def voc_mean(samples: Sequence[Sample], answers: Sequence[Detections], classes: int) -> float | None:
    """VOC's AP at IoU 0.5 (every point), the mean over the classes that have objects."""
    values = []
    for class_id in range(classes):
        boxes = [[box for box in sample.boxes if box.label_id == class_id] for sample in samples]
        kept = [answer.class_id == class_id for answer in answers]
        value = average_precision(
            [np.array([box.xyxy for box in part], np.float64).reshape(-1, 4) for part in boxes],
            [answer.xyxy[rows].astype(np.float64) for answer, rows in zip(answers, kept, strict=True)],
            [answer.confidence[rows].astype(np.float64) for answer, rows in zip(answers, kept, strict=True)],
            difficult=[np.array([box.difficult or box.crowd for box in part], np.bool_) for part in boxes],
        )
        if value is not None:
            values.append(value)
    return float(np.mean(values)) if values else None


def as_coco(samples: Sequence[Sample], labels: tuple[str, ...]) -> dict[str, Any]:
    """Labels in COCO's form: picture i has id i + 1, label i category i + 1."""
    boxes = [(number, box) for number, sample in enumerate(samples, 1) for box in sample.boxes]
    return {
        "images": [
            {"id": number, "width": sample.width, "height": sample.height} for number, sample in enumerate(samples, 1)
        ],
        "categories": [{"id": number, "name": label} for number, label in enumerate(labels, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": box.label_id + 1,
                "bbox": (size := _xywh(*box.xyxy)),
                "area": size[2] * size[3] if box.area_px is None else box.area_px,
                "iscrowd": int(box.crowd),
                "difficult": int(box.difficult),
            }
            for number, (image, box) in enumerate(boxes, 1)
        ],
    }


def as_results(answers: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections in COCO's form."""
    return [
        {"image_id": number, "category_id": class_id + 1, "bbox": _xywh(*xyxy), "score": confidence}
        for number, found in enumerate(answers, 1)
        for xyxy, confidence, class_id in zip(
            found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist(), strict=True
        )
    ]


def _xywh(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right - left, bottom - top]


def _value(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _together(matches: Sequence[ClassMatches]) -> ClassMatches:
    """All classes as one list; each was matched within its class."""
    confidence = np.concatenate([single.confidence for single in matches])
    order = np.argsort(-confidence, kind="stable")
    return ClassMatches(
        confidence=confidence[order],
        picture=np.concatenate([single.picture for single in matches])[order],
        hit=np.concatenate([single.hit for single in matches], axis=1)[:, order],
        ignored=np.concatenate([single.ignored for single in matches], axis=1)[:, order],
        objects=np.sum([single.objects for single in matches], axis=0),
    )


def rates_at(matches: ClassMatches, threshold: float) -> Rates | None:
    """Precision, recall and F1 of what reaches a threshold; None where there is no object."""
    objects = int(matches.objects.sum())
    if not objects:
        return None
    kept = matches.confidence >= np.float32(threshold)  # as the decoder compares
    right = int((matches.hit[0] & kept).sum())
    counted = int((~matches.ignored[0] & kept).sum())
    return _rates(threshold, right, counted, objects)


def best_rates(matches: ClassMatches) -> Rates | None:
    """The threshold with the best F1 of all that are possible; of equal ones the highest."""
    objects = int(matches.objects.sum())
    if not objects or not len(matches.confidence):
        return None
    right = np.cumsum(matches.hit[0])
    counted = np.cumsum(~matches.ignored[0])
    f1 = 2 * right / (counted + objects)
    # Equally confident detections come or go together: only the last of them is a possible cut.
    possible = np.append(np.diff(matches.confidence) != 0, True)
    cut = int(np.argmax(np.where(possible, f1, -1)))
    if not right[cut]:
        return None
    return _rates(float(matches.confidence[cut]), int(right[cut]), int(counted[cut]), objects)


def _rates(threshold: float, right: int, counted: int, objects: int) -> Rates:
    return Rates(
        threshold=threshold,
        precision=right / counted if counted else None,
        recall=right / objects,
        f1=2 * right / (counted + objects),
    )


def _picture_f1(matches: ClassMatches, threshold: float) -> NDArray[np.float64]:
    kept = matches.confidence >= np.float32(threshold)
    pictures = len(matches.objects)
    right = np.bincount(matches.picture[matches.hit[0] & kept], minlength=pictures)
    counted = np.bincount(matches.picture[~matches.ignored[0] & kept], minlength=pictures)
    whole = counted + matches.objects
    f1: NDArray[np.float64] = np.divide(2 * right, whole, out=np.ones(pictures), where=whole > 0)
    return f1
