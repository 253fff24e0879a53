"""Classification."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Quantization


def classify(scores, dtype=np.float32, quantization=None, **context):
    values = np.array(scores, dtype).reshape(1, -1)
    made = decoder("classifier", {"scores": spec(values.shape, dtype=dtype, quantization=quantization)}, **context)
    return made({"out": values}, same())


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60), st.integers(1, 10))
def test_the_best_k_in_order(scores, k):
    found = classify(scores, top_k=k, confidence=-100.0)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert found.class_id.tolist() == expected
    assert found.confidence.tolist() == [np.float32(scores[i]) for i in expected]


@given(st.lists(st.floats(-(2**99), 2**99, width=32), min_size=1, max_size=60))
def test_softmax_is_stable_and_sums_to_one(scores):
    found = classify(scores, top_k=60, confidence=0.0, activation="softmax")
    assert found.confidence.sum() == pytest.approx(1, rel=1e-4)
    # Scores nearer to each other than this have one float32 power.
    assert np.array(scores, np.float32)[found.class_id[0]] >= np.float32(max(scores)) - np.float32(1e-5)


def test_sigmoid():
    found = classify([0, 1000, -1000], top_k=3, confidence=0.0, activation="sigmoid")
    assert found.class_id.tolist() == [1, 0, 2]
    np.testing.assert_allclose(found.confidence, [1, 0.5, 0], atol=1e-6)


def test_thresholds_and_wanted_classes():
    scores = [0.1, 0.4, 0.3, 0.2]
    assert classify(scores, confidence=0.25).class_id.tolist() == [1, 2]
    assert classify(scores, confidence=0.25, class_confidence={1: 0.5, 0: 0.05}).class_id.tolist() == [2, 0]
    assert classify(scores, confidence=0.0, classes=frozenset({0, 3, 99}), top_k=1).class_id.tolist() == [3]
    assert len(classify(scores, confidence=0.9)) == 0


@pytest.mark.parametrize("activation", ["none", "softmax"])
def test_integers_give_what_their_real_values_give(activation):
    values = np.random.default_rng(0).integers(-128, 128, 1001).astype(np.int8)
    quantization = per_tensor(0.0989, 58)
    first = classify(values, np.int8, quantization, confidence=0.0, activation=activation)
    second = classify(dequantize(values, quantization), confidence=0.0, activation=activation)
    assert first.class_id.tolist() == second.class_id.tolist()
    assert first.confidence.tolist() == second.confidence.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_an_error(bad):
    with pytest.raises(InferenceError, match="output 'out': 1 of 3 scores are no finite numbers"):
        classify([0.1, bad, 0.2])


def test_axes_of_one_do_not_matter():
    made = decoder("classifier", {"scores": spec((1, 1, 1, 3))}, confidence=0.0, labels=("a", "b", "c"))
    found = made({"out": np.array([[[[0.1, 0.7, 0.2]]]], np.float32)}, same())
    assert found.class_id.tolist() == [1, 2, 0]
    assert found.labels == ("a", "b", "c")


def test_the_result_shares_no_memory_with_the_tensors():
    values = np.array([[0.1, 0.7, 0.2]], np.float32)
    found = decoder("classifier", {"scores": spec((1, 3))}, confidence=0.0)({"out": values}, same())
    values[:] = 0
    assert found.confidence.tolist() == [np.float32(0.7), np.float32(0.2), np.float32(0.1)]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="name no scores"):
        decoder("classifier", {"logits": spec((1, 3))})
    with pytest.raises(ModelError, match=r"is \[1, 3549, 85\]; \[1, classes\] is needed"):
        decoder("classifier", {"scores": spec((1, 3549, 85))})
    with pytest.raises(ModelError, match="has 3 classes, but there are 1 labels"):
        decoder("classifier", {"scores": spec((1, 3))}, labels=("a",))
    wide = Quantization(scale=np.ones(3, np.float32), zero_point=np.zeros(3, np.int32), axis=1)
    with pytest.raises(ModelError, match="quantised per channel"):
        decoder("classifier", {"scores": spec((1, 3), dtype=np.int8, quantization=wide)})


def test_several_labels_at_once():
    scores = np.array([[2.0, -3.0, 0.5, 0.1, 4.0]], np.float32)
    outputs = {"scores": spec(scores.shape)}

    def found(**context):
        made = decoder("classifier", outputs, {"multi_label": True}, activation="sigmoid", top_k=1, **context)
        return made({"out": scores}, same())

    assert found(confidence=0.5).class_id.tolist() == [4, 0, 2, 3]
    assert found(confidence=0.5).multi_label
    assert found(confidence=0.5, class_confidence={4: 0.99, 1: 0.01}).class_id.tolist() == [0, 2, 3, 1]
    assert found(confidence=0.5, max_detections=2).class_id.tolist() == [4, 0]
    assert found(confidence=0.5, classes=frozenset({0, 1})).class_id.tolist() == [0]
    assert len(found(confidence=0.99)) == 0
    with pytest.raises(ModelError, match="softmax makes them share one certainty; use sigmoid or none"):
        decoder("classifier", outputs, {"multi_label": True}, activation="softmax")


def test_an_open_batch_is_one_picture():
    """tf2onnx names the output's batch otherwise than the input's, so it stays open."""
    made = decoder("classifier", {"scores": spec((-1, 3))}, labels=("a", "b", "c"), confidence=0.0, top_k=1)
    assert made({"out": np.array([[0.1, 0.7, 0.2]], np.float32)}, same()).class_id.tolist() == [1]
    with pytest.raises(InferenceError, match=r"output 'out' gave \[2, 3\]: the answer for one picture is needed"):
        made({"out": np.zeros((2, 3), np.float32)}, same())
    with pytest.raises(ModelError, match="has 3 classes, but there are 2 labels"):
        decoder("classifier", {"scores": spec((-1, 3))}, labels=("a", "b"))
