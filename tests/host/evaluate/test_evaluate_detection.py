"""Precision, recall and F1 at any threshold, the way from a dataset to COCO's form, and what is left to be said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.host.dataset.base import Box, Sample
from edgevision.host.evaluate.coco import ClassMatches
from edgevision.host.evaluate.detection import as_coco, best_rates, rates_at, score
from edgevision.types import Detections


def sample(name, *boxes):
    return Sample(name=name, path=Path(name), width=200, height=100, boxes=boxes)


def box(label_id, *xyxy, **more):
    return Box(label_id=label_id, xyxy=xyxy, **more)


def said(*rows):
    """A row is class, confidence, left, top, right, bottom."""
    return Detections(
        xyxy=np.array([row[2:] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row[1] for row in rows], np.float32),
        class_id=np.array([row[0] for row in rows], np.int32),
    )


SAMPLES = [
    sample("a", box(0, 0, 0, 20, 20), box(0, 50, 50, 80, 80), box(1, 100, 0, 140, 40)),
    sample("b", box(0, 0, 0, 20, 20)),
    sample("c"),
]
ANSWERS = [
    said((0, 0.9, 0, 0, 20, 20), (0, 0.4, 50, 50, 80, 80), (1, 0.8, 0, 60, 30, 90)),
    said((0, 0.3, 100, 50, 120, 70)),
    said(),
]


def test_rates_by_hand():
    result: Any = score(SAMPLES, ANSWERS, ("bolt", "nut", "washer"), own_threshold=0.5)
    bolt, nut, washer = result.classes
    assert (bolt.objects, nut.objects, washer.objects) == (3, 1, 0)
    assert (bolt.own.precision, bolt.own.recall, bolt.own.f1) == pytest.approx((1, 1 / 3, 0.5))
    assert (bolt.best.threshold, bolt.best.precision, bolt.best.recall) == pytest.approx((0.4, 1, 2 / 3))
    assert (nut.best, nut.own.precision, nut.own.recall) == (None, 0, 0)
    assert (washer.best, washer.own, washer.ap) == (None, None, None)
    assert (result.overall.precision, result.overall.recall) == pytest.approx((1 / 2, 1 / 4))
    assert result.picture_f1.tolist() == pytest.approx([2 / 5, 0, 1])
    assert result.voc_ap50 is None


def test_a_detection_exactly_at_the_own_threshold_counts_as_in_the_decoder():
    # 0.3 as float32 is above 0.3 as float64; the decoder compares float32.
    for threshold in (0.3, 0.7):
        result: Any = score(SAMPLES[:1], [said((0, threshold, 0, 0, 20, 20))], ("bolt", "nut"), own_threshold=threshold)
        assert result.classes[0].own.recall == pytest.approx(1 / 2)


def test_voc_figure_is_made_for_voc_only():
    assert score(SAMPLES, ANSWERS, ("bolt", "nut"), own_threshold=0.5, voc_too=True).voc_ap50 == pytest.approx(1 / 3)


def test_coco_form_keeps_area_crowd_and_difficult():
    labelled = sample("a", box(1, 1, 2, 11, 22, area_px=50, crowd=True), box(0, 0, 0, 4, 4, difficult=True))
    first, second = as_coco([labelled], ("bolt", "nut"))["annotations"]
    assert (first["bbox"], first["area"], first["iscrowd"], first["difficult"]) == ([1, 2, 10, 20], 50, 1, 0)
    assert (second["category_id"], second["area"], second["difficult"]) == (1, 16, 1)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), st.sampled_from(["hit", "miss", "skip"])), max_size=12
    ),
    st.integers(0, 8),
)
def test_the_best_threshold_is_the_best_of_all(rows, missed):
    rows = sorted(rows, key=lambda row: -row[0])
    hit = np.array([[what == "hit" for _, what in rows]], np.bool_).repeat(10, axis=0)
    matches = ClassMatches(
        confidence=np.array([confidence for confidence, _ in rows], np.float32).astype(np.float64),
        picture=np.zeros(len(rows), np.int64),
        hit=hit,
        ignored=np.array([[what == "skip" for _, what in rows]], np.bool_).repeat(10, axis=0),
        objects=np.array([int(hit[0].sum()) + missed]),
    )
    best = best_rates(matches)
    everywhere = [rates_at(matches, confidence) for confidence, _ in rows]
    tried = [rates for rates in everywhere if rates is not None and rates.f1 > 0]
    if best is None:
        assert not tried
    else:
        assert best.f1 == pytest.approx(max(rates.f1 for rates in tried))
        assert best == rates_at(matches, best.threshold)
