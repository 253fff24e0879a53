"""SSD with its post-processing inside the model."""

import numpy as np
import pytest
from decode_support import decoder, same, spec

from edgevision.errors import InferenceError, ModelError
from edgevision.types import ImageTransform

ROLES = {
    "boxes": spec((1, 4, 4), "b"),
    "classes": spec((1, 4), "c"),
    "scores": spec((1, 4), "s"),
    "count": spec((1,), "n"),
}


def tensors(count=4.0):
    return {
        # top, left, bottom, right
        "b": np.array([[[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [-0.5, -0.5, 0.5, 2], [0.1, 0.2, 0.5, 0.6]]], np.float32),
        "c": np.array([[16, 0, 3, 7]], np.float32),
        "s": np.array([[0.4, 0.9, 0.3, 0.8]], np.float32),
        "n": np.array([count], np.float32),
    }


def test_boxes_turn_into_frame_pixels_and_are_ordered_and_clipped():
    transform = ImageTransform(
        frame_size=(640, 480), input_size=(300, 300), scale=(1.5, 0.75), offset=(-150.0, 0.0), region=(100, 0, 300, 400)
    )
    found = decoder("ssd", ROLES)(tensors(), transform)
    assert found.class_id.tolist() == [0, 7, 16, 3]
    np.testing.assert_allclose(found.confidence, [0.9, 0.8, 0.4, 0.3])
    np.testing.assert_allclose(
        found.xyxy,
        [[100, 0, 300, 400], [140, 40, 220, 200], [140, 40, 220, 200], [100, 0, 300, 200]],
        rtol=1e-5,
    )


def test_only_as_many_as_the_model_counts():
    assert decoder("ssd", ROLES)(tensors(2.0), same()).class_id.tolist() == [0, 16]
    assert len(decoder("ssd", ROLES)(tensors(0.0), same())) == 0


def test_the_class_offset_and_thresholds_go_together():
    found = decoder("ssd", ROLES, {"class_offset": 1}, class_confidence={17: 0.5, 4: 0.1}, confidence=0.35)(
        tensors(), same()
    )
    assert found.class_id.tolist() == [1, 8, 4]
    assert decoder("ssd", ROLES, classes=frozenset({7}))(tensors(), same()).class_id.tolist() == [7]


def test_boxes_without_measure_are_dropped():
    given = tensors()
    given["b"][0, 1] = np.nan
    given["b"][0, 0] = [0.5, 0.5, 0.5, 0.9]  # no height
    given["c"][0, 2] = np.nan
    assert decoder("ssd", ROLES)(given, same()).class_id.tolist() == [7]


@pytest.mark.parametrize("count", [-1.0, 5.0, np.nan, np.inf])
def test_a_senseless_count_is_an_error(count):
    with pytest.raises(InferenceError, match=r"output 'n' counts .* detections; there is room for 0 to 4"):
        decoder("ssd", ROLES)(tensors(count), same())


def test_scores_that_are_no_numbers_are_not_nothing_found():
    given = tensors()
    given["s"][:] = np.nan
    with pytest.raises(InferenceError, match="output 's': all scores are NaN"):
        decoder("ssd", ROLES)(given, same())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"name no scores, count; needed: boxes, classes, scores, count"):
        decoder("ssd", {role: ROLES[role] for role in ("boxes", "classes")})
    with pytest.raises(ModelError, match=r"'b' \(boxes\) is \[1, 4, 5\]; \[1, n, 4\] is needed"):
        decoder("ssd", {**ROLES, "boxes": spec((1, 4, 5), "b")})
    with pytest.raises(ModelError, match=r"'s' \(scores\) is \[1, 9\]"):
        decoder("ssd", {**ROLES, "scores": spec((1, 9), "s")})
    with pytest.raises(ModelError, match="activation sigmoid"):
        decoder("ssd", ROLES, activation="sigmoid")
