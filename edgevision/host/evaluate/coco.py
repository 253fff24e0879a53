"""COCO's detection metrics by pycocotools, from plain annotations in memory; its chatter is kept from standard output.

Two things come out that pycocotools computes and does not hand on: the matches themselves, from which precision, recall
and F1 follow at any threshold, and AP again from resampled pictures, for an interval. VOC's difficult objects are treated
as VOC does: neither found nor missed.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgevision import registry

MAX_DETECTIONS = 100
"""COCO's custom for a model's output, per picture. pycocotools itself counts as many per picture and class."""

_SUMMARY = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""In the order of pycocotools' `stats`. Small is an area up to 32 x 32 pixels, large from 96 x 96."""

_RECALLS = np.linspace(0.0, 1.0, 101)
"""As pycocotools makes them, to the last bit: a recall of 0.29 may or may not reach the threshold 0.29."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMatches:
    """One class's detections over all pictures, most confident first, and what became of each at every IoU."""

    confidence: NDArray[np.float64]
    """(d,)"""
    picture: NDArray[np.int64]
    """(d,) index of the picture."""
    hit: NDArray[np.bool_]
    """(10, d) found an object, at IoU 0.5, 0.55 ... 0.95."""
    ignored: NDArray[np.bool_]
    """(10, d) lies on a crowd or a difficult object: neither right nor wrong."""
    objects: NDArray[np.int64]
    """(pictures,) objects that count."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CocoScores:
    """What pycocotools says. A figure is None where there was nothing to measure."""

    summary: dict[str, float | None]
    """ap (IoU 0.5 to 0.95), ap50, ap75, ap_small, ap_medium, ap_large, ar_1, ar_10, ar_100, ar_small, ..."""
    class_ap: NDArray[np.float64]
    """(classes,) NaN where the class has no object."""
    class_ap50: NDArray[np.float64]
    matches: tuple[ClassMatches, ...]
    """By class."""


def coco_scores(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: Literal["bbox", "segm"] = "bbox"
) -> CocoScores:
    """Score results against labels, both in COCO's own form.

    Args:
        truth: `images`, `categories` and `annotations`; an annotation may also carry `difficult`.
        results: `image_id`, `category_id`, `score` and `bbox` (x, y, width, height) or `segmentation` (RLE).
        kind: boxes or masks.

    Raises:
        PluginError: pycocotools is not installed.
    """
    api = registry.require("pycocotools.coco", package="edgevision[host]", purpose="detection metrics")
    module = registry.require("pycocotools.cocoeval", package="edgevision[host]", purpose="detection metrics")
    with contextlib.redirect_stdout(io.StringIO()):
        labels, found = api.COCO(), api.COCO()
        labels.dataset = {**truth, "annotations": [dict(item) for item in truth["annotations"]]}
        labels.createIndex()
        found.dataset = {
            "images": truth["images"],
            "categories": truth["categories"],
            "annotations": [_annotation(number, item, kind) for number, item in enumerate(results, 1)],
        }
        found.createIndex()
        evaluator = _with_difficult(module.COCOeval)(labels, found, kind)
        evaluator.params.maxDets = [1, 10, MAX_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    # (IoU, recall, class, area, detections per picture); -1 where nothing could be measured
    precision = evaluator.eval["precision"][:, :, :, 0, 2]
    return CocoScores(
        summary=dict(zip(_SUMMARY, (_or_none(value) for value in evaluator.stats.tolist()), strict=True)),
        class_ap=_class_mean(precision),
        class_ap50=_class_mean(precision[:1]),
        matches=_matches(evaluator),
    )


def _with_difficult(base: Any) -> Any:
    """Pycocotools ignores only crowds; this evaluator also ignores what is marked `difficult`."""

    class Evaluator(base):  # type: ignore[misc]  # the base carries no types
        def _prepare(self) -> None:
            super()._prepare()
            for labelled in self._gts.values():
                for annotation in labelled:
                    if annotation.get("difficult"):
                        annotation["ignore"] = 1

    return Evaluator


def _annotation(number: int, item: dict[str, Any], kind: str) -> dict[str, Any]:
    """A result as `COCO.loadRes` completes it: an id from 1 (0 reads as "not matched") and the area of its size class."""
    made = {**item, "id": number, "iscrowd": 0}
    if kind == "bbox":
        made["area"] = item["bbox"][2] * item["bbox"][3]
    else:
        masks = registry.require("pycocotools.mask", package="edgevision[host]", purpose="detection metrics")
        made["area"] = float(masks.area(item["segmentation"]))
    return made


def _or_none(value: float) -> float | None:
    return None if value < 0 else value


def _class_mean(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(IoU, recall, class) as mean by class; NaN where nothing was measured."""
    means: NDArray[np.float64] = precision.reshape(-1, precision.shape[2]).mean(axis=0)
    means[precision[0, 0] < 0] = np.nan
    return means


def _matches(evaluator: Any) -> tuple[ClassMatches, ...]:
    pictures, areas = len(evaluator.params.imgIds), len(evaluator.params.areaRng)
    thresholds = len(evaluator.params.iouThrs)
    by_class = []
    for class_number in range(len(evaluator.params.catIds)):
        start = class_number * areas * pictures  # the first area is "all"
        objects = np.zeros(pictures, np.int64)
        confidence: list[Any] = [np.empty(0)]
        picture: list[Any] = [np.empty(0, np.int64)]
        hit: list[Any] = [np.empty((thresholds, 0), np.bool_)]
        ignored: list[Any] = [np.empty((thresholds, 0), np.bool_)]
        for index, image in enumerate(evaluator.evalImgs[start : start + pictures]):
            if image is None:
                continue
            objects[index] = int((np.asarray(image["gtIgnore"]) == 0).sum())
            confidence.append(np.asarray(image["dtScores"], np.float64))
            picture.append(np.full(len(image["dtScores"]), index, np.int64))
            hit.append(np.asarray(image["dtMatches"]) != 0)
            ignored.append(np.asarray(image["dtIgnore"]) != 0)
        scores = np.concatenate(confidence)
        order = np.argsort(-scores, kind="stable")
        skip = np.concatenate(ignored, axis=1)[:, order]
        by_class.append(
            ClassMatches(
                confidence=scores[order],
                picture=np.concatenate(picture)[order],
                hit=np.concatenate(hit, axis=1)[:, order] & ~skip,
                ignored=skip,
                objects=objects,
            )
        )
    return tuple(by_class)


def resampled_ap(matches: Sequence[ClassMatches], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """COCO's AP of resampled pictures: the mean over classes and IoUs of precision at 101 recalls.

    Args:
        matches: by class.
        weights: (resamples, pictures) how often each picture was drawn.

    Returns:
        (resamples,); NaN where no object was drawn. With all weights 1 it is pycocotools' own figure.
    """
    total = np.zeros(len(weights))
    measured = np.zeros(len(weights))
    for single in matches:
        objects = weights @ single.objects
        present = objects > 0
        measured += present
        if len(single.confidence):
            block = max(1, 1_000_000 // single.hit.size)
            for start in range(0, len(weights), block):
                part = slice(start, start + block)
                total[part] += np.where(present[part], _ap(single, weights[part], objects[part]), 0)
    result: NDArray[np.float64] = np.divide(total, measured, out=np.full(len(total), np.nan), where=measured > 0)
    return result


def _ap(single: ClassMatches, weights: NDArray[np.int64], objects: NDArray[np.int64]) -> NDArray[np.float64]:
    """(b,) AP of one class: each detection's recall step counts the recall thresholds it passes."""
    drawn = weights[:, single.picture][:, None, :]  # (b, 1, d)
    right = np.cumsum(drawn * single.hit, axis=2, dtype=np.float64)  # (b, 10, d)
    counted = np.cumsum(drawn * ~single.ignored, axis=2, dtype=np.float64)
    precision = np.divide(right, counted, out=np.zeros_like(right), where=counted > 0)
    envelope = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
    recall = right / np.maximum(objects, 1)[:, None, None]
    passed = np.searchsorted(_RECALLS, recall, side="right")  # recall thresholds that are reached
    steps = np.diff(passed, axis=2, prepend=0)
    ap: NDArray[np.float64] = (envelope * steps).sum(axis=2).mean(axis=1) / 101
    return ap
