"""Embeddings."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize


def embed(values, options=None, quantization=None):
    values = np.asarray(values)
    made = decoder(
        "embedding", {"embedding": spec(values.shape, dtype=values.dtype, quantization=quantization)}, options
    )
    return made({"out": values}, same())


@given(st.integers(0, 2**32 - 1), st.integers(1, 64), st.floats(1e-18, 1e18))
def test_the_length_is_one_and_the_direction_stays(seed, size, scale):
    vector = np.random.default_rng(seed).normal(0, 1, (1, size)).astype(np.float32) * np.float32(scale)
    found = embed(vector)
    assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)
    exact = vector[0].astype(np.float64)
    np.testing.assert_allclose(found.vector, exact / np.linalg.norm(exact), atol=1e-6)
    assert found.normalised
    np.testing.assert_array_equal(embed(vector, {"normalise": False}).vector, vector[0])


def test_integers_and_axes_of_one():
    values = np.array([[[[-3]], [[4]]]], np.int8)
    quantization = per_tensor(0.5, 1)
    found = embed(values, {"normalise": False}, quantization)
    np.testing.assert_array_equal(found.vector, dequantize(values, quantization).ravel())
    assert embed(np.array([[3, 4]], np.float16)).vector.tolist() == [np.float32(0.6), np.float32(0.8)]


def test_the_result_shares_no_memory_with_the_tensors():
    values = np.array([[1, 2]], np.float32)
    found = decoder("embedding", {"embedding": spec((1, 2))}, {"normalise": False})({"out": values}, same())
    values[:] = 0
    assert found.vector.tolist() == [1, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_an_error(bad):
    with pytest.raises(InferenceError, match="1 of 3 numbers are not finite"):
        embed(np.array([[1, bad, 2]], np.float32))


def test_nothing_has_no_direction():
    with pytest.raises(InferenceError, match="has no direction"):
        embed(np.zeros((1, 3), np.float32))
    assert embed(np.zeros((1, 3), np.float32), {"normalise": False}).vector.tolist() == [0, 0, 0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"\(embedding\) is \[1, 64, 7, 7\]; \[1, n\] is needed"):
        decoder("embedding", {"embedding": spec((1, 64, 7, 7))})
    with pytest.raises(ModelError, match="5000 numbers; a message holds at most 4096"):
        decoder("embedding", {"embedding": spec((1, 5000))})
    with pytest.raises(ModelError, match="activation softmax"):
        decoder("embedding", {"embedding": spec((1, 5))}, activation="softmax")
    with pytest.raises(ModelError, match="name no embedding"):
        decoder("embedding", {})
    with pytest.raises(InferenceError, match="5000 numbers"):
        decoder("embedding", {"embedding": spec((1, -1))})({"out": np.ones((1, 5000), np.float32)}, same())


def test_an_open_batch_is_one_picture():
    made = decoder("embedding", {"embedding": spec((-1, 2))})
    assert made({"out": np.array([[3, 4]], np.float32)}, same()).vector.tolist() == [np.float32(0.6), np.float32(0.8)]
    with pytest.raises(InferenceError, match=r"output 'out' gave \[2, 2\]: the answer for one picture is needed"):
        made({"out": np.ones((2, 2), np.float32)}, same())
    with pytest.raises(ModelError, match="at most 4096"):
        decoder("embedding", {"embedding": spec((-1, 4097))})
