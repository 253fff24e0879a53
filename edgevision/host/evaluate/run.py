"""Showing a dataset's pictures to a model, and scoring what it says. Every prediction goes through `pipeline.Model.run`.

A fault in the dataset, or a picture that cannot be read, ends it with one line each, unless the caller says to leave such
out; then they are counted, and the count is part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from edgevision.assembly import ModelSettings
from edgevision.capture.images import read_image
from edgevision.errors import ImageError, UsageError
from edgevision.host.dataset.base import Dataset, Sample, Task
from edgevision.host.dataset.masks import read_mask
from edgevision.host.evaluate import classification, detection, segmentation
from edgevision.host.evaluate.answers import OTHER, ClassMap, Found, PixelCounts, match_classes, unknown_labels
from edgevision.host.evaluate.classification import ClassificationResult
from edgevision.host.evaluate.coco import MAX_DETECTIONS
from edgevision.host.evaluate.corruptions import Image
from edgevision.host.evaluate.detection import DetectionResult
from edgevision.host.evaluate.segmentation import SegmentationResult
from edgevision.host.progress import track
from edgevision.pipeline import Model
from edgevision.tiling import Tiling
from edgevision.types import Classifications, Detections, Embedding, Predictions

LOW_CONFIDENCE = 0.01
"""What a detector is run with: AP needs the unsure answers too."""

Result: TypeAlias = DetectionResult | ClassificationResult | SegmentationResult

_SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One model on one choice of pictures."""

    samples: tuple[Sample, ...]
    """That were looked at, in order."""
    answers: tuple[Found, ...]
    result: Result
    confidence: float
    """Detections below were dropped."""
    own_confidence: float
    """The model's own threshold, at which the daemon would run it."""
    iou: float
    """Of the model's NMS."""
    class_agnostic: bool
    """Whether boxes of different classes suppressed each other."""
    max_detections: int
    classes: str
    """How the model's classes were matched with the dataset's."""
    unscored: int
    """Detections of classes that the dataset has not: neither right nor wrong."""

    @property
    def figure(self) -> float | None:
        """The one number that stands for all: AP, top-1 or mIoU."""
        return figure(self.result)


def figure(result: Result) -> float | None:
    """The one number that stands for all of a result."""
    if isinstance(result, DetectionResult):
        return result.ap
    return result.top1 if isinstance(result, ClassificationResult) else result.mean_iou


def figure_name(result: Result) -> str:
    """What that number is called."""
    if isinstance(result, DetectionResult):
        return "AP"
    return "top-1" if isinstance(result, ClassificationResult) else "mIoU"


def settings_for(
    task: Task,
    *,
    backend: str | None = None,
    threads: int = 2,
    confidence: float | None = None,
    iou: float | None = None,
    class_agnostic: bool | None = None,
    max_detections: int | None = None,
    tiling: Tiling | None = None,
) -> ModelSettings:
    """How a model is loaded to be evaluated: nothing is dropped that a metric needs, and nothing more is kept than that.

    Args:
        task: the dataset's. A classifier's best five are kept, however unsure.
        backend: as for `load_model`.
        threads: of one inference.
        confidence: below which detections are dropped, None for `LOW_CONFIDENCE`; or pixels become background, None for
            the model's own. A classifier has none: its figures need every answer.
        iou: of the NMS; None for the model's own.
        class_agnostic: whether boxes of different classes suppress each other; None for the model's own.
        max_detections: per picture; None for COCO's 100.
        tiling: look at pictures in tiles; None for as a whole.

    Raises:
        UsageError: a confidence for a classifier.
    """
    if task == "classification":
        if confidence is not None:
            raise UsageError(
                "--confidence: a classification is scored by all its answers, however unsure; leave it out (what the model's "
                "own threshold answers is told anyway)"
            )
        confidence = 0.0
    elif task == "detection" and confidence is None:
        confidence = LOW_CONFIDENCE
    return ModelSettings(
        backend=backend,
        threads=threads,
        confidence=confidence,
        iou=iou,
        class_agnostic=class_agnostic,
        max_detections=MAX_DETECTIONS if max_detections is None else max_detections,
        top_k=classification.TOP_K,
        tiling=tiling,
    )


def usable(
    dataset: Dataset, samples: Sequence[Sample], *, skip_faulty: bool, warn: Callable[[str], None]
) -> tuple[tuple[Sample, ...], int]:
    """The samples whose pictures can be read, and how many cannot; each fault is told.

    Raises:
        ImageError: there are faults and `skip_faulty` is not said; or nothing is left.
    """
    faults = [str(fault) for fault in dataset.faults]
    good = []
    for sample in track("reading pictures", samples):
        try:
            read_image(sample.path)
            good.append(sample)
        except ImageError as failure:
            faults.append(str(failure))
    if faults and not skip_faulty:
        told = "".join(f"\n  {fault}" for fault in faults[:_SHOWN_FAULTS])
        more = f"\n  and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        raise ImageError(
            f"{dataset.source}: {len(faults)} faults; mend them, or leave them out with --skip-faulty:{told}{more}"
        )
    for fault in faults:
        warn(fault)
    if not good:
        raise ImageError(f"{dataset.source}: no picture is left to look at")
    return tuple(good), len(samples) - len(good)


def known_to(
    model: Model, dataset: Dataset, samples: Sequence[Sample], *, offset: int | None, skip_faulty: bool
) -> tuple[ClassMap, tuple[Sample, ...], str | None]:
    """Match the classes (by number where `offset` is given), and leave out what the model does not know.

    Returns:
        The map; the samples, without boxes of unknown classes, or without the pictures of unknown classes; a line
        about what was left out.

    Raises:
        UsageError: the model has another task, or does not know a label and `skip_faulty` is not said.
    """
    if model.manifest.task != dataset.task:
        raise UsageError(
            f"{model.name} is a model for {model.manifest.task}, and {dataset.source} is a dataset for {dataset.task}"
        )
    used = frozenset(
        label
        for sample in samples
        for label in ([] if sample.label_id is None else [sample.label_id]) + [box.label_id for box in sample.boxes]
    )
    if dataset.task == "segmentation":
        used = frozenset(range(len(dataset.labels)))
    try:
        classes = match_classes(model.labels, dataset.labels, offset=offset, used=used)
    except UsageError as failure:
        raise UsageError(f"{dataset.source}: {failure}") from failure
    unknown = classes.missing & used
    if not unknown:
        return classes, tuple(samples), None
    problem = f"{dataset.source}: {unknown_labels(model.labels, dataset.labels, unknown)}"
    if not skip_faulty:
        raise UsageError(problem)
    if dataset.task == "classification":
        kept = tuple(sample for sample in samples if sample.label_id not in unknown)
        return classes, kept, f"{problem}: {len(samples) - len(kept)} pictures are left out"
    boxes = sum(box.label_id in unknown for sample in samples for box in sample.boxes)
    kept = tuple(
        replace(sample, boxes=tuple(box for box in sample.boxes if box.label_id not in unknown)) for sample in samples
    )
    return classes, kept, f"{problem}: {boxes} boxes are left out"


def evaluate(
    model: Model,
    dataset: Dataset,
    samples: Sequence[Sample],
    classes: ClassMap,
    *,
    settings: ModelSettings,
    spoil: Callable[[Image, str], Image] | None = None,
    what: str | None = None,
) -> Evaluation:
    """Show every picture to a model and score what it says.

    Args:
        model: loaded with `settings`.
        dataset: whose labels count.
        samples: the pictures, as `usable` and `known_to` gave them.
        classes: as `known_to` gave it.
        settings: for the report.
        spoil: changes a picture, given its name, before the model sees it.
        what: for the progress bar.

    Raises:
        ImageError: a picture cannot be read any more.
        InferenceError: the runtime failed.
    """
    answers, unscored = [], 0
    for sample in track(what or f"{model.name} ({model.backend_name})", samples):
        image = read_image(sample.path)
        found = model.predict(image if spoil is None else spoil(image, sample.name))
        answer, dropped = _in_labels(found, classes, dataset, sample)
        answers.append(answer)
        unscored += dropped
    thresholds = model.manifest.thresholds
    low = thresholds.confidence if settings.confidence is None else settings.confidence
    # What was dropped cannot be scored: the own threshold is not below the one that was used.
    own = max(thresholds.confidence, low)
    return Evaluation(
        samples=tuple(samples),
        answers=tuple(answers),
        result=_score(
            dataset,
            samples,
            answers,
            classes.names,
            own=own,
            classes=len(model.labels) or len(dataset.labels),
        ),
        confidence=low,
        own_confidence=own,
        iou=thresholds.iou if settings.iou is None else settings.iou,
        class_agnostic=thresholds.class_agnostic if settings.class_agnostic is None else settings.class_agnostic,
        max_detections=thresholds.max_detections if settings.max_detections is None else settings.max_detections,
        classes=classes.how,
        unscored=unscored,
    )


def _in_labels(found: Predictions, classes: ClassMap, dataset: Dataset, sample: Sample) -> tuple[Found, int]:
    """An answer in the dataset's classes, and how many detections of other classes were dropped."""
    if isinstance(found, Detections):
        ids = classes.labels(found.class_id)
        kept = ids != OTHER
        answer = Detections(
            xyxy=found.xyxy[kept], confidence=found.confidence[kept], class_id=ids[kept].astype(np.int32)
        )
        return answer, int((~kept).sum())
    if isinstance(found, Classifications):
        mapped = classes.labels(found.class_id).astype(np.int32)
        return Classifications(confidence=found.confidence.copy(), class_id=mapped), 0
    if isinstance(found, Embedding):
        raise UsageError(f"{dataset.source}: an embedding names no class: there is nothing to score it by")
    return _pixels(found.class_map, classes, dataset, sample), 0


def _pixels(said: NDArray[Any], classes: ClassMap, dataset: Dataset, sample: Sample) -> PixelCounts:
    if sample.mask is None:
        raise ImageError(f"{sample.path}: has no mask")
    mask = read_mask(sample.mask)
    ids = classes.labels(said.ravel().astype(np.int32)).reshape(said.shape)
    try:
        return segmentation.count_pixels(ids, mask, len(dataset.labels))
    except ValueError as problem:
        raise ImageError(f"{sample.mask}: {problem}") from problem


def _score(
    dataset: Dataset,
    samples: Sequence[Sample],
    answers: list[Found],
    names: tuple[str, ...],
    *,
    own: float,
    classes: int,
) -> Result:
    """Score by the dataset's task; `own` is the model's own threshold, `classes` how many it knows."""
    if dataset.task == "detection":
        return detection.score(
            samples,
            cast("list[Detections]", answers),
            names,
            own_threshold=own,
            voc_too=dataset.format == "voc",
        )
    if dataset.task == "classification":
        return classification.score(
            np.array([sample.label_id for sample in samples], np.int64),
            cast("list[Classifications]", answers),
            names,
            model_classes=classes,
            own_threshold=own,
        )
    return segmentation.score(cast("list[PixelCounts]", answers), names)
