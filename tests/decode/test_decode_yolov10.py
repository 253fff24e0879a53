"""YOLOv10 and YOLO26: finished objects."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize, quantize


def make(rows, options=None, **context):
    return decoder("yolov10", {"predictions": spec(rows.shape, dtype=rows.dtype)}, options, **context)


def objects(seed):
    rng = np.random.default_rng(seed)
    corner = rng.random((12, 2)) * 40
    rows = np.column_stack((corner, corner + 1 + rng.random((12, 2)) * 20, rng.random(12), rng.integers(0, 4, 12)))
    return rows[None].astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_every_row_above_its_threshold_is_an_object_however_they_overlap(seed, normalised):
    rows = objects(seed)
    expected = sorted((row for row in rows[0].tolist() if row[4] >= 0.3 and row[5] in {0, 2}), key=lambda row: -row[4])
    if normalised:
        rows[..., :4] /= 64
    decode = make(rows, {"normalised": normalised}, confidence=0.3, iou=0.0, classes=frozenset({0, 2}))
    found = decode({"out": rows}, same())
    assert len(found) == len(expected)
    np.testing.assert_allclose(
        np.column_stack((found.xyxy, found.confidence, found.class_id)), np.reshape(expected, (-1, 6))
    )


def test_integers_are_what_they_stand_for():
    rows = objects(0)
    rows[..., :4] /= 64
    rows[..., 5] = rows[..., 5].clip(0, 1)
    quantization = per_tensor(1 / 128, -128)
    integers = quantize(rows, quantization, np.dtype(np.int8))
    outputs = {"predictions": spec(rows.shape, dtype=np.int8, quantization=quantization)}
    first = decoder("yolov10", outputs, {"normalised": True}, confidence=0.3)({"out": integers}, same())
    real = dequantize(integers, quantization)
    second = make(real, {"normalised": True}, confidence=0.3)({"out": real}, same())
    assert len(first) > 3
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    np.testing.assert_array_equal(first.confidence, second.confidence)


def test_broken_rows_are_no_objects_and_nothing_but_broken_rows_is_a_broken_model():
    rows = objects(1)
    rows[..., 4] = 0.9
    rows[0, 0, 5] = np.nan
    rows[0, 1, 5] = -3
    rows[0, 2, 5] = np.inf
    rows[0, 3, 4] = np.nan
    rows[0, 4, 0] = np.nan
    rows[0, 5, 2] = np.inf
    rows[0, 6, 4] = np.inf
    assert len(make(rows, confidence=0.5)({"out": rows}, same())) == 5
    rows[..., 4] = np.nan
    with pytest.raises(InferenceError, match="output 'out': all scores are NaN"):
        make(rows)({"out": rows}, same())
    rows[..., 4] = 0
    assert len(make(rows)({"out": rows}, same())) == 0


def test_what_does_not_fit_is_refused_with_figures():
    with pytest.raises(ModelError, match="`outputs` name no predictions; needed: predictions"):
        decoder("yolov10", {})
    with pytest.raises(
        ModelError, match=r"'out' \(predictions\) is \[1, 84, 8400\]; \[1, n, 6\] is needed \(box, conf"
    ):
        decoder("yolov10", {"predictions": spec((1, 84, 8400))})
    with pytest.raises(ModelError, match="activation sigmoid does not belong to finished objects"):
        decoder("yolov10", {"predictions": spec((1, 300, 6))}, activation="sigmoid")
    open_ = decoder("yolov10", {"predictions": spec((1, -1, -1))})
    with pytest.raises(ModelError, match="gave rows of 7; 6 are needed"):
        open_({"out": np.zeros((1, 3, 7), np.float32)}, same())
    several = decoder("yolov10", {"predictions": spec((-1, 3, 6))})
    with pytest.raises(ModelError, match=r"'out' gave \[2, 3, 6\]: the answer for one picture is needed"):
        several({"out": np.zeros((2, 3, 6), np.float32)}, same())
