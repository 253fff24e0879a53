"""Bytes instead of floats, where that is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from qdq_support import run, silu_network

from edgevision.host.quantize.onnx.input import feed_uint8
from edgevision.host.quantize.onnx.qdq import Recipe, quantize
from edgevision.host.quantize.onnx.ranges import Range


def quantised(mean, std, *, signed=False):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 3, 12, 12))
    few = [{"x": ((p - mean) / std).astype(np.float32)} for p in pixels]
    exact = {"x": Range(low=(0 - mean) / std, high=(255 - mean) / std)}
    recipe = Recipe(name="test", signed=signed, correct_bias=False)
    return quantize(silu_network(), calibration=lambda: few, recipe=recipe, fixed_ranges=exact)


@settings(max_examples=12)
@given(mean=st.integers(0, 255), std=st.floats(0.5, 300), signed=st.booleans())
def test_the_same_pixels_give_the_same_outputs(mean, std, signed):
    model = quantised(mean, std, signed=signed)
    fed = feed_uint8(model, mean=[mean], std=[std])
    assert fed.model is not None, fed.reason
    assert fed.model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 12, 12)).astype(np.uint8)
    real = ((pixels.astype(np.float64) - mean) / std).astype(np.float32)
    np.testing.assert_array_equal(run(fed.model, {"x": pixels})[0], run(model, {"x": real})[0])


def test_raw_pixels():
    fed = feed_uint8(quantised(0, 1), mean=[0, 0, 0], std=[1, 1, 1])
    assert fed.model is not None
    assert fed.reason == ""


@pytest.mark.parametrize(
    ("mean", "std", "channel"),
    [([123.675] * 3, [58.0] * 3, 0), ([127, 127, 120], [128.0] * 3, 2), ([127] * 3, [128, 120, 128], 1)],
)
def test_what_would_not_be_exact_is_told(mean, std, channel):
    fed = feed_uint8(quantised(127, 128), mean=mean, std=std)
    assert fed.model is None
    assert fed.reason.startswith(f"channel {channel} ")
    assert "zero point 127" in fed.reason


@pytest.mark.parametrize(("mean", "std"), [(0, 1.0), (127, 128.0)])
def test_a_first_layer_in_float_is_fed_too_where_that_is_exact(mean, std):
    model = silu_network()
    fed = feed_uint8(model, mean=[mean] * 3, std=[std] * 3)
    assert fed.model is not None, fed.reason
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 12, 12)).astype(np.uint8)
    real = ((pixels.astype(np.float64) - mean) / std).astype(np.float32)
    np.testing.assert_array_equal(run(fed.model, {"x": pixels})[0], run(model, {"x": real})[0])


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [([0], [58.395], "no exact float32"), ([0.5], [1], "whole mean"), ([1, 2], [1], "whole mean")],
)
def test_a_first_layer_in_float_is_not_fed_where_it_would_not_be_exact(mean, std, words):
    fed = feed_uint8(silu_network(), mean=mean, std=std)
    assert fed.model is None
    assert words in fed.reason
