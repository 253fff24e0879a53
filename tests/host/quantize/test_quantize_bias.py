"""Correcting biases and rounding weights layer by layer."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from qdq_support import Nodes, network, pictures, run, silu_network, sqnr

from edgevision.host.quantize.onnx import bias
from edgevision.host.quantize.onnx.qdq import Recipe, observe_all, quantize
from edgevision.host.quantize.onnx.rounding import Geometry, geometry, round_weights, sample
from edgevision.host.quantize.onnx.weights import is_pair_safe, weight_scales


def channel_error(model, quantised, tensor="c1"):
    """Mean error of each channel of an inner result."""
    both = []
    for each in (model, quantised):
        copy = onnx.ModelProto()
        copy.CopyFrom(each)
        del copy.graph.output[:]
        copy.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
        both.append(np.mean([run(copy, fed)[0].mean(axis=(0, 2, 3)) for fed in pictures(8)()], axis=0))
    return np.abs(both[0] - both[1]).max()


@pytest.mark.parametrize("trt", [False, True])
def test_the_mean_error_of_each_channel_goes(trt):
    model = silu_network()
    base = Recipe(name="", signed=trt, symmetric=trt, inputs_only=trt)
    common: dict[str, Any] = {"calibration": pictures(8), "observed": observe_all(model, pictures(8))}
    plain = quantize(model, recipe=replace(base, name="plain", correct_bias=False), **common)
    corrected = quantize(model, recipe=replace(base, name="bias", round_weights=False), **common)
    assert channel_error(model, corrected) < 0.2 * channel_error(model, plain)


def test_fewer_pictures_are_kept_where_memory_is_short(monkeypatch):
    drawn = []

    def calibration():
        for fed in pictures(8)():
            drawn.append(1)
            yield fed

    model = silu_network()
    quantised = quantize(model, calibration=pictures(8), recipe=Recipe(name="plain", correct_bias=False))
    monkeypatch.setattr(bias, "KEPT_BYTES", 1)
    bias.correct(model, quantised, calibration)
    assert len(drawn) == 1


def test_paths_that_fork_and_join_are_computed_as_in_the_whole():
    generator = np.random.default_rng(0)
    weights = {f"w{i}": generator.normal(size=(3, 3, 1, 1)).astype(np.float32) for i in range(4)}
    nodes: Nodes = [
        ("Conv", ["x", "w0"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Conv", ["b", "w1"], ["c"], {}),
        ("Add", ["b", "c"], ["d"], {}),
        ("Conv", ["d", "w2"], ["e"], {}),
        ("Add", ["d", "e"], ["f"], {}),
        ("Conv", ["f", "w3"], ["y"], {}),
    ]
    shape = [1, 3, 12, 12]
    model = network(nodes, {"x": shape}, {"y": shape}, weights)
    layers = [node.name for node in model.graph.node if node.op_type == "Conv"]
    steps = bias.Steps(model, layers, threads=1)
    fed = list(pictures(2)())
    kept = [dict(tensors) for tensors in fed]
    for layer in layers:
        steps.run(layer, kept)
    for tensors, picture in zip(kept, fed, strict=True):
        np.testing.assert_allclose(tensors["y"], run(model, picture)[0], rtol=1e-5, atol=1e-5)
        # What nobody reads any more is gone.
        assert set(tensors) == {"y"}


def naive(weight, scale):
    return np.clip(np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))), -127, 127)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), columns=st.integers(2, 24), pair_safe=st.booleans(), groups=st.sampled_from([1, 3]))
def test_rounding_together_beats_rounding_apart(seed, columns, pair_safe, groups):
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(groups, columns, columns))
    read = generator.normal(size=(groups, 600, columns)) @ mixing + generator.normal(size=(groups, 1, columns))
    weight = generator.normal(size=(6, columns)).astype(np.float32)
    scale = weight_scales(weight, axis=0, pair_safe=pair_safe) * 8  # coarse steps, so that rounding matters
    steps = round_weights(weight, scale, read, pair_safe=False)

    def error(rounded):
        change = (rounded * scale[:, None] - weight).reshape(groups, -1, columns)
        return np.square((read - read.mean(axis=1, keepdims=True)) @ change.transpose(0, 2, 1)).mean()

    assert error(steps.astype(float)) <= 1.02 * error(naive(weight, scale))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), columns=st.integers(2, 24))
def test_pair_safe_rounding_is_safe(seed, columns):
    generator = np.random.default_rng(seed)
    read = generator.normal(size=(1, 200, columns)) + 3
    weight = generator.standard_t(2, (6, columns)).astype(np.float32)
    steps = round_weights(weight, weight_scales(weight, axis=0, pair_safe=True), read, pair_safe=True)
    assert is_pair_safe(steps, axis=0)


@pytest.mark.parametrize(("groups", "stride", "pads"), [(1, 1, [0] * 4), (1, 2, [1, 0, 2, 1]), (4, 1, [1] * 4)])
def test_what_is_sampled_is_what_the_convolution_reads(groups, stride, pads):
    generator = np.random.default_rng(0)
    image = generator.normal(size=(1, 4, 9, 8)).astype(np.float32)
    weight = generator.normal(size=(8, 4 // groups, 3, 3)).astype(np.float32)
    attributes = {"group": groups, "strides": [stride] * 2, "pads": pads}
    model = network([("Conv", ["x", "w"], ["y"], attributes)], {"x": [1, 4, 9, 8]}, {"y": None}, {"w": weight})
    result = run(model, {"x": image})[0]
    shape = geometry(model.graph.node[0], weight.shape)
    assert isinstance(shape, Geometry)
    read, wanted = sample(image, result, shape, generator)
    by_group = weight.reshape(groups, 8 // groups, -1)
    np.testing.assert_allclose(read @ by_group.transpose(0, 2, 1), wanted, rtol=1e-4, atol=1e-4)


def test_aiming_at_the_float_result_makes_up_for_a_weaker_input():
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(4, 6)).astype(np.float32)
    read = generator.normal(size=(1, 500, 6))
    wanted = (read / 0.9) @ weight.T  # the layers before have made everything weaker
    scale = weight_scales(weight * 1.5, axis=0, pair_safe=False)

    def error(steps):
        return np.square(read[0] @ (steps * scale[:, None]).T - wanted[0]).mean()

    plain = round_weights(weight, scale, read, pair_safe=False)
    aimed = round_weights(weight, scale, read, pair_safe=False, wanted=wanted)
    assert error(aimed) < 0.1 * error(plain)


def test_rounding_lowers_the_noise_of_a_network():
    model = silu_network(channels=16)
    common: dict[str, Any] = {"calibration": pictures(8), "observed": observe_all(model, pictures(8))}

    def noise(recipe):
        quantised = quantize(model, recipe=recipe, **common)
        return np.mean([sqnr(run(model, fed)[0], run(quantised, fed)[0]) for fed in pictures(4, seed=9)()])

    plain = noise(Recipe(name="plain", correct_bias=False, pair_safe=True))
    assert noise(Recipe(name="all", pair_safe=True)) > plain


def test_biases_stay_whole_numbers_of_steps():
    quantised = quantize(silu_network(), calibration=pictures(4), recipe=Recipe(name="u8"))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    assert held["b0_quantized"].dtype == np.int32
