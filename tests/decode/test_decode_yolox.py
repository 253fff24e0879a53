"""YOLOX: against a decoder written as the paper says it, in every number type."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import ImageTransform

ROWS = 64 + 16 + 4  # cells of 8, 16 and 32 pixels on 64 x 64
CELLS = [(x, y, s) for s in (8, 16, 32) for y in range(64 // s) for x in range(64 // s)]


def empty(classes=3):
    rows = np.zeros((1, ROWS, 5 + classes), np.float32)
    rows[..., 2:4] = -10
    return rows


def put(rows, row, *, box=(0.0, 0.0, 0.0, 0.0), objectness, scores):
    rows[0, row] = [*box, objectness, *scores]


def make(rows, **settings_of):
    """One class for one row, also at an evaluation's thresholds."""
    return decoder("yolox", {"predictions": spec(rows.shape)}, {"multi_label": False}, **settings_of)


def plain(rows, confidence, transform):
    """(x0, y0, x1, y1, confidence, class) of every row at or above `confidence`, without NMS, most confident first."""
    found = []
    for (x, y, w, h, objectness, *scores), (cell_x, cell_y, stride) in zip(rows[0].tolist(), CELLS, strict=True):
        best = int(np.argmax(scores))
        if objectness * scores[best] < confidence:
            continue
        centre = ((x + cell_x) * stride, (y + cell_y) * stride)
        half = (np.exp(w) * stride / 2, np.exp(h) * stride / 2)
        corners = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]
        left, top, right, bottom = transform.region
        (sx, sy), (ox, oy) = transform.scale, transform.offset
        frame = [(corners[0] - ox) / sx, (corners[1] - oy) / sy, (corners[2] - ox) / sx, (corners[3] - oy) / sy]
        clipped = np.clip(frame, [left, top, left, top], [right, bottom, right, bottom])
        if clipped[2] > clipped[0] and clipped[3] > clipped[1]:
            found.append((*clipped, objectness * scores[best], best))
    return np.array(sorted(found, key=lambda row: -row[4])).reshape(-1, 6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.25, 0.5]))
@settings(deadline=None)
def test_it_is_the_paper_s_decoding(seed, confidence):
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (1, ROWS, 8)).astype(np.float32)
    # Sixty-fourths: float32 holds their products exactly, so equals are equal in both, and stay in order.
    rows[..., 4:] = rng.integers(0, 65, (1, ROWS, 4)).astype(np.float32) / 64
    transform = ImageTransform(
        frame_size=(300, 200), input_size=(64, 64), scale=(0.3, 0.5), offset=(-6.0, -10.0), region=(20, 20, 200, 140)
    )
    # With an IoU of 1 nothing is suppressed.
    found = make(rows, confidence=confidence, iou=1.0, max_detections=1000)({"out": rows}, transform)
    expected = plain(rows, confidence, transform)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.confidence, expected[:, 4], rtol=1e-5)
    np.testing.assert_allclose(found.xyxy, expected[:, :4], rtol=1e-4, atol=1e-2)
    assert found.class_id.tolist() == expected[:, 5].astype(int).tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.1, 0.25, 0.4999, 0.9]), st.sampled_from([np.int8, np.uint8]))
@settings(deadline=None)
def test_integers_give_exactly_what_their_real_values_give(seed, confidence, dtype):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    quantization = per_tensor(1 / 256, limits.min)
    rows = rng.integers(limits.min, limits.max + 1, (1, ROWS, 8)).astype(dtype)
    context = {"confidence": confidence, "iou": 0.5, "class_confidence": {1: 0.3}}
    outputs = {"predictions": spec(rows.shape, dtype=dtype, quantization=quantization)}
    integer = decoder("yolox", outputs, {"multi_label": False}, **context)
    real = make(rows, **context)
    first = integer({"out": rows}, same())
    second = real({"out": dequantize(rows, quantization)}, same())
    np.testing.assert_array_equal(first.confidence, second.confidence)
    np.testing.assert_array_equal(first.class_id, second.class_id)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)


def test_raw_scores_get_their_sigmoid():
    rng = np.random.default_rng(3)
    raw = rng.normal(0, 2, (1, ROWS, 8)).astype(np.float32)
    ready = raw.copy()
    ready[..., 4:] = 1 / (1 + np.exp(-raw[..., 4:]))
    first = make(raw, activation="sigmoid")({"out": raw}, same())
    second = make(ready)({"out": ready}, same())
    assert len(second) > 3
    np.testing.assert_allclose(first.confidence, second.confidence, rtol=1e-5)
    np.testing.assert_allclose(first.xyxy, second.xyxy, rtol=1e-5)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_the_ends_of_the_threshold_with_a_sigmoid(confidence):
    rows = empty()
    put(rows, 0, objectness=2, scores=(2, 0, 0))
    rows[0, 1:, 2:4] = 0
    found = make(rows, confidence=confidence, activation="sigmoid", iou=1.0)({"out": rows}, same())
    assert len(found) == (ROWS if confidence == 0 else 0)


def test_thresholds_of_single_classes_may_be_lower_or_higher():
    rows = empty()
    put(rows, 0, box=(0.5, 0.5, 0, 0), objectness=0.9, scores=(0.2, 0, 0))  # 0.18 of class 0
    put(rows, 20, box=(0.5, 0.5, 0, 0), objectness=0.9, scores=(0, 0.5, 0))  # 0.45 of class 1
    put(rows, 40, box=(0.5, 0.5, 0, 0), objectness=0.9, scores=(0, 0, 0.5))  # 0.45 of class 2
    found = make(rows, confidence=0.3, class_confidence={0: 0.1, 1: 0.6})({"out": rows}, same())
    assert found.class_id.tolist() == [2, 0]
    only = make(rows, confidence=0.3, class_confidence={0: 0.1}, classes=frozenset({0, 1}))({"out": rows}, same())
    assert only.class_id.tolist() == [1, 0]


def test_boxes_without_measure_or_outside_are_dropped():
    rows = empty()
    put(rows, 0, box=(np.nan, 0, 0, 0), objectness=1, scores=(1, 0, 0))
    put(rows, 1, box=(0, 0, 1e4, 0), objectness=1, scores=(1, 0, 0))  # exp() overflows
    put(rows, 2, box=(np.inf, 0, 0, 0), objectness=1, scores=(1, 0, 0))
    put(rows, 3, box=(900, 0, 0, 0), objectness=1, scores=(1, 0, 0))  # far to the right of the frame
    put(rows, 4, box=(0, 0, 0, 0), objectness=np.nan, scores=(1, 0, 0))
    put(rows, 60, box=(0.5, 0.5, 0, 0), objectness=1, scores=(1, 0, 0))
    found = make(rows)({"out": rows}, same())
    assert len(found) == 1
    assert found.xyxy.tolist() == [[32, 56, 40, 64]]


def test_a_model_that_gives_no_numbers_is_not_nothing_found():
    rows = np.full((1, ROWS, 8), np.nan, np.float32)
    with pytest.raises(InferenceError, match="output 'out': all scores are NaN"):
        make(rows)({"out": rows}, same())
    rows[..., 4] = 1
    with pytest.raises(InferenceError, match="output 'out': all scores are NaN"):
        make(rows)({"out": rows}, same())


def test_one_row_is_one_class_unless_told_otherwise():
    rows = empty()
    put(rows, 20, box=(0.5, 0.5, 0, 0), objectness=0.9, scores=(0.6, 0.1, 0.8))
    one = make(rows)({"out": rows}, same())
    assert one.class_id.tolist() == [2]
    several = decoder("yolox", {"predictions": spec(rows.shape)}, {"multi_label": True})({"out": rows}, same())
    assert several.class_id.tolist() == [2, 0]
    for confidence, classes in ((0.01, [2, 0, 1]), (0.05, [2])):  # only an evaluation asks for less than 0.05
        automatic = decoder("yolox", {"predictions": spec(rows.shape)}, confidence=confidence)
        assert automatic({"out": rows}, same()).class_id.tolist() == classes
    np.testing.assert_allclose(several.confidence, [0.72, 0.54], rtol=1e-6)
    np.testing.assert_array_equal(several.xyxy[0], several.xyxy[1])


def test_no_more_than_max_detections_and_the_best_of_them():
    rng = np.random.default_rng(0)
    rows = rng.random((1, ROWS, 8)).astype(np.float32)
    every = make(rows, confidence=0.01, iou=1.0, max_detections=1000)({"out": rows}, same())
    best = make(rows, confidence=0.01, iou=1.0, max_detections=7)({"out": rows}, same())
    assert len(every) > 40
    assert best.confidence.tolist() == every.confidence[:7].tolist()


def test_nothing_found_has_the_right_shapes():
    rows = empty()
    found = make(rows, labels=("a", "b", "c"))({"out": rows}, same())
    assert found.xyxy.shape == (0, 4)
    assert found.confidence.dtype == np.float32
    assert found.class_id.dtype == np.int32
    assert found.labels == ("a", "b", "c")


def test_the_result_shares_no_memory_with_the_tensors():
    rows = np.random.default_rng(0).random((1, ROWS, 8)).astype(np.float32)
    found = make(rows)({"out": rows}, same())
    before = (found.xyxy.copy(), found.confidence.copy())
    rows[:] = 0
    np.testing.assert_array_equal(found.xyxy, before[0])
    np.testing.assert_array_equal(found.confidence, before[1])


def test_what_does_not_fit_is_refused_with_figures():
    with pytest.raises(ModelError, match=r"`outputs` name no predictions; needed: predictions; found: scores"):
        decoder("yolox", {"scores": spec((1, 84, 8))})
    with pytest.raises(ModelError, match=r"is \[1, 84\]; \[1, rows, 5 \+ classes\] is needed"):
        decoder("yolox", {"predictions": spec((1, 84))})
    with pytest.raises(ModelError, match=r"has 3 classes, but there are 2 labels"):
        decoder("yolox", {"predictions": spec((1, 84, 8))}, labels=("a", "b"))
    with pytest.raises(ModelError, match="has no room for a class"):
        decoder("yolox", {"predictions": spec((1, 84, 5))})
    with pytest.raises(ModelError, match="int8 without a scale and zero point"):
        decoder("yolox", {"predictions": spec((1, 84, 8), dtype=np.int8)})
    with pytest.raises(ModelError, match="activation softmax"):
        decoder("yolox", {"predictions": spec((1, 84, 8))}, activation="softmax")
    rows = empty()
    with pytest.raises(ModelError, match=r"has 84 rows, but strides \[8, 16\] .* 64x64 make 8x8 \+ 4x4 = 80 cells"):
        decoder("yolox", {"predictions": spec(rows.shape)}, {"strides": [8, 16]})({"out": rows}, same())
