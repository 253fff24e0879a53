"""An evaluation as one JSON document: what was measured, on what, with which settings, by which version, on which host."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevision._version import __version__
from edgevision.host.dataset.base import Dataset
from edgevision.host.evaluate.against import Comparison
from edgevision.host.evaluate.classification import ClassificationResult, confused_pairs
from edgevision.host.evaluate.detection import DetectionResult
from edgevision.host.evaluate.robustness import Slice, mean_drop
from edgevision.host.evaluate.run import Evaluation, Result, figure_name
from edgevision.pipeline import Model

SCHEMA = "edgevision/evaluation/1"

_PAIRS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """What the figures were measured on."""

    source: str
    format: str
    task: str
    role: str | None
    digest: str
    """Of the whole dataset, whatever part was looked at."""
    pictures: int
    """In the dataset."""
    limit: int | None
    seed: int
    looked_at: int
    unreadable: int
    """Pictures that were left out because they cannot be read."""
    unknown: int
    """Pictures that were left out because the model does not know their class."""
    faults: int
    """That reading the labels found, and left out."""
    notes: tuple[str, ...]
    """What the dataset's files hold and is not looked at."""
    test_uses_before: int | None
    """How often this held-out test set had been used before; None where it is none."""


def dataset_facts(
    dataset: Dataset,
    *,
    digest: str,
    limit: int | None,
    seed: int,
    looked_at: int,
    unreadable: int,
    unknown: int,
    test_uses_before: int | None,
) -> DatasetFacts:
    """Collect them."""
    return DatasetFacts(
        source=str(dataset.source),
        format=dataset.format,
        task=dataset.task,
        role=dataset.role,
        digest=digest,
        pictures=len(dataset),
        limit=limit,
        seed=seed,
        looked_at=looked_at,
        unreadable=unreadable,
        unknown=unknown,
        faults=len(dataset.faults),
        notes=dataset.notes,
        test_uses_before=test_uses_before,
    )


def document(
    facts: DatasetFacts,
    models: Sequence[tuple[Model, Evaluation, Sequence[Slice]]],
    comparison: Comparison | None = None,
) -> dict[str, Any]:
    """The whole result; `models` is the one that was asked for and, after it, the one it is compared with."""
    return {
        "schema": SCHEMA,
        "edgevision": __version__,
        "dataset": asdict(facts),
        "models": [_model(*entry) for entry in models],
        "comparison": None if comparison is None else asdict(comparison) | {"proved": comparison.proved},
        "host": host(),
    }


def host() -> dict[str, Any]:
    """The machine, in words."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or None


def _model(model: Model, evaluation: Evaluation, slices: Sequence[Slice]) -> dict[str, Any]:
    detection = isinstance(evaluation.result, DetectionResult)
    return {
        "name": model.name,
        "version": model.manifest.version,
        "backend": model.backend_name,
        "sha256": model.sha256,
        "threads": model.threads,
        "thresholds": {
            "confidence": evaluation.confidence,
            "own_confidence": evaluation.own_confidence,
            "iou": evaluation.iou if detection else None,
            "class_agnostic": evaluation.class_agnostic if detection else None,
            "max_detections": evaluation.max_detections if detection else None,
        },
        "tiling": None if model.tiles is None else model.tiles.tiling.model_dump(mode="json"),
        "decoder": dict(model.manifest.decoder),
        "classes_matched": evaluation.classes,
        "unscored_detections": evaluation.unscored,
        "figure": {"name": figure_name(evaluation.result), "value": evaluation.figure},
        "result": result(evaluation.result),
        "robustness": None
        if not slices
        else {"slices": [asdict(part) for part in slices], "mean_relative_drop": mean_drop(slices)},
    }


def result(scores: Result) -> dict[str, Any]:
    """One result's figures, plain."""
    if isinstance(scores, DetectionResult):
        return {
            **scores.coco.summary,
            "overall": None if scores.overall is None else asdict(scores.overall),
            "best_overall": None if scores.best_overall is None else asdict(scores.best_overall),
            "voc_ap50": scores.voc_ap50,
            "classes": [asdict(single) for single in scores.classes],
        }
    if isinstance(scores, ClassificationResult):
        labels = scores.labels
        rows, columns = np.nonzero(scores.confusion)
        return {
            "top1": scores.top1,
            "top5": scores.top5,
            "balanced_accuracy": scores.balanced_accuracy,
            "majority_baseline": scores.majority_baseline,
            "answered": scores.answered,
            "answered_top1": scores.answered_top1,
            "classes": [asdict(single) for single in scores.classes],
            "labels": list(labels),
            "confusion": [
                [int(row), int(column), int(scores.confusion[row, column])]
                for row, column in zip(rows, columns, strict=True)
            ],
            "confused": [
                {"truth": truth, "answer": answer, "count": count, "share": share}
                for truth, answer, count, share in confused_pairs(scores.confusion, labels, _PAIRS)
            ],
        }
    return {
        "mean_iou": scores.mean_iou,
        "pixel_accuracy": scores.pixel_accuracy,
        "classes": [
            {"label": label, "pixels": int(pixels), "iou": None if np.isnan(iou) else float(iou)}
            for label, pixels, iou in zip(scores.labels, scores.class_pixels, scores.class_iou, strict=True)
        ],
    }
