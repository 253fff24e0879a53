"""DETR and its heirs, and the rows of exports that name classes themselves (golden outputs are in tests/golden)."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Quantization

ROWS = {"boxes": spec((1, 4, 4), "b"), "classes": spec((1, 4), "c", np.int64), "scores": spec((1, 4), "s")}


def raw(shape=(1, 5, 3), boxes=(1, 5, 4), **changes):
    return {"boxes": spec(boxes, "b"), "scores": spec(shape, "s"), **changes}


def rows(scores=(0.9, 0.8, 0.1, 0.7), classes=(1, 2, 1, 0)):
    boxes = np.array([[[0, 0, 10, 10], [1, 1, 9, 9], [2, 2, 8, 8], [-5, 10, 90, 30]]], np.float32)
    return {"b": boxes, "c": np.array([classes], np.int64), "s": np.array([scores], np.float32)}


def test_a_query_is_one_object_unless_all_classes_are_asked_for():
    scores = np.full((1, 5, 3), -9, np.float32)
    scores[0, 2] = [1.0, 2.0, -3.0]
    boxes = np.full((1, 5, 4), 0.5, np.float32)
    given_as = {"b": boxes, "s": scores}
    one = decoder("detr", raw(), activation="sigmoid")(given_as, same())
    assert (one.class_id.tolist(), one.xyxy.tolist()) == ([1], [[16, 16, 48, 48]])
    both = decoder("detr", raw(), {"multi_label": True}, activation="sigmoid")(given_as, same())
    assert both.class_id.tolist() == [1, 0]
    without = decoder("detr", raw(), {"multi_label": True, "nms": True}, activation="sigmoid")(given_as, same())
    assert without.class_id.tolist() == [1, 0]  # other classes suppress nothing
    pixels = decoder("detr", raw(), {"boxes": "pixels"}, activation="sigmoid")
    assert pixels({"b": boxes * 64, "s": scores}, same()).xyxy.tolist() == [[16, 16, 48, 48]]


def test_two_queries_of_one_object_are_one_with_nms():
    scores = np.full((1, 5, 3), -9, np.float32)
    scores[0, 2:4, 1] = [1, 2]
    given_as = {"b": np.full((1, 5, 4), 0.5, np.float32), "s": scores}
    assert len(decoder("detr", raw(), activation="sigmoid")(given_as, same())) == 2
    assert len(decoder("detr", raw(), {"nms": True}, activation="sigmoid")(given_as, same())) == 1


@given(st.integers(0, 2**32 - 1), st.sampled_from(["sigmoid", "softmax", "none"]))
def test_integers_give_what_their_real_values_give(seed, activation):
    rng = np.random.default_rng(seed)
    quantization = per_tensor(0.05, 3)
    values = {
        "s": rng.integers(-128, 128, (1, 5, 3)).astype(np.int8),
        "b": rng.integers(3, 23, (1, 5, 4)).astype(np.int8),
    }
    outputs = {
        "boxes": spec((1, 5, 4), "b", np.int8, quantization),
        "scores": spec((1, 5, 3), "s", np.int8, quantization),
    }
    first = decoder("detr", outputs, activation=activation)(values, same())
    real = {name: dequantize(value, quantization) for name, value in values.items()}
    second = decoder("detr", raw(), activation=activation)(real, same())
    for field in ("xyxy", "confidence", "class_id"):
        np.testing.assert_allclose(getattr(first, field), getattr(second, field), rtol=1e-6)


def test_the_last_class_of_softmax_is_no_object():
    scores = np.array([[[0, 0, 9], [9, 0, 0]]], np.float32)
    boxes = np.full((1, 2, 4), 0.5, np.float32)
    made = decoder("detr", raw((1, 2, 3), (1, 2, 4)), activation="softmax", labels=("a", "b"))
    assert made({"b": boxes, "s": scores}, same()).class_id.tolist() == [0]
    with pytest.raises(ModelError, match="has 2 classes, but there are 3 labels"):
        decoder("detr", raw((1, 2, 3), (1, 2, 4)), activation="softmax", labels=("a", "b", "c"))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_a_model_that_gives_no_numbers_is_not_nothing_found(activation):
    given_as = {"b": np.full((1, 5, 4), 0.5, np.float32), "s": np.full((1, 5, 3), np.nan, np.float32)}
    with pytest.raises(InferenceError, match="output 's': all scores are NaN"):
        decoder("detr", raw(), activation=activation)(given_as, same())


@pytest.mark.parametrize("family", ["detr", "faster_rcnn"])
def test_rows_with_their_own_classes(family):
    found = decoder(family, ROWS, confidence=0.25)(rows(), same())
    assert found.class_id.tolist() == [1, 2, 0]
    assert found.xyxy.tolist() == [[0, 0, 10, 10], [1, 1, 9, 9], [0, 10, 64, 30]]
    shifted = decoder(family, ROWS, {"class_offset": -1}, confidence=0.25)(rows(), same())
    assert shifted.class_id.tolist() == [0, 1]  # what would be -1 is the background
    with pytest.raises(InferenceError, match="output 's': all scores are NaN"):
        decoder(family, ROWS)(rows(scores=(np.nan,) * 4), same())


@pytest.mark.parametrize("n", [0, 2])
def test_as_many_rows_as_there_are(n):
    outputs = {"boxes": spec((-1, 4), "b"), "classes": spec((-1,), "c", np.int64), "scores": spec((-1,), "s")}
    given_as = {name: value[0, :n] for name, value in rows().items()}
    assert len(decoder("faster_rcnn", outputs)(given_as, same())) == n
    with pytest.raises(InferenceError, match="must have as many"):
        decoder("faster_rcnn", outputs)({**given_as, "s": np.zeros(n + 1, np.float32)}, same())


@pytest.mark.parametrize(
    ("family", "outputs", "context", "words"),
    [
        ("detr", {"boxes": spec((1, 5, 4))}, {}, "name no scores; needed: boxes, scores"),
        ("detr", raw(boxes=(1, 5, 5)), {}, r"'b' \(boxes\) is \[1, 5, 5\]; \[1, n, 4\] is needed"),
        ("detr", raw(shape=(1, 6, 3)), {}, r"'s' \(scores\) is \[1, 6, 3\]; \[1, n, classes\] is needed"),
        ("detr", raw(shape=(1, 5)), {}, "give their role, `classes`"),
        ("detr", raw(), {"labels": ("a",)}, "has 3 classes, but there are 1 labels"),
        ("detr", ROWS, {"activation": "sigmoid"}, "activation sigmoid does not belong to scores of rows"),
        ("faster_rcnn", {**ROWS, "boxes": spec((4, 4), "b")}, {}, r"'c' \(classes\) is \[1, 4\]; \[n\] is needed"),
        ("faster_rcnn", {**ROWS, "boxes": spec((2, 4, 4), "b")}, {}, r"\[n, 4\] or \[1, n, 4\] is needed"),
        ("faster_rcnn", {**ROWS, "scores": spec((1, 9), "s")}, {}, r"'s' \(scores\) is \[1, 9\]; \[1, n\] is needed"),
        ("faster_rcnn", {"boxes": ROWS["boxes"]}, {}, "name no classes, scores"),
    ],
)
def test_what_does_not_fit_is_refused(family, outputs, context, words):
    with pytest.raises(ModelError, match=words):
        decoder(family, outputs, **context)


def test_scores_quantised_per_channel_are_refused():
    wide = Quantization(scale=np.ones(3, np.float32), zero_point=np.zeros(3, np.int32), axis=2)
    with pytest.raises(ModelError, match="quantised per channel"):
        decoder("detr", raw(scores=spec((1, 5, 3), "s", np.int8, wide)))
