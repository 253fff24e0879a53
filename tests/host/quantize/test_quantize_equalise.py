"""Scaling channels without changing what a network computes."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdq_support import network, pictures, run, silu_network, sqnr

from edgevision.host.quantize.onnx.equalise import equalise
from edgevision.host.quantize.onnx.fusion import integer_share
from edgevision.host.quantize.onnx.qdq import Recipe, nodes_to_quantize, quantize
from edgevision.host.quantize.onnx.seen import Readers


def outputs(model, count=4):
    return np.concatenate([run(model, fed)[0].ravel() for fed in pictures(count, seed=99)()])


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), spread=st.floats(1, 300))
def test_the_outputs_stay_the_same(seed, spread):
    model = silu_network(seed, spread=spread)
    made = equalise(model, pictures(4), least_gain=0.0).model
    assert sqnr(outputs(model), outputs(made)) > 80


def test_channels_that_differ_gain_many_decibels():
    model = silu_network(spread=200.0)
    scaled = equalise(model, pictures(8))
    assert "c0" in scaled.ranges
    recipe = Recipe(name="u8")
    plain = quantize(model, calibration=pictures(8), recipe=recipe)
    better = quantize(scaled.model, calibration=pictures(8), recipe=recipe, fixed_ranges=scaled.ranges)
    assert sqnr(outputs(model), outputs(better)) > sqnr(outputs(model), outputs(plain)) + 6
    integer, convolutions, operators = integer_share(better.SerializeToString(), signed_allowed=False)
    assert (integer, convolutions) == (2, 3)
    assert operators["QLinearMul"] == 2 + len(scaled.ranges)


def test_channels_that_are_alike_are_left_alone():
    model = silu_network(spread=1.0)
    scaled = equalise(model, pictures(8), least_gain=0.05)
    assert not scaled.ranges
    assert len(scaled.model.graph.node) == len(model.graph.node)


def test_what_stays_in_float_is_skipped():
    assert "c0" not in equalise(silu_network(spread=200.0), pictures(8), skip={"Conv_0"}).ranges


def test_relu_needs_no_extra_node():
    generator = np.random.default_rng(0)
    reach = np.geomspace(1, 100, 8).astype(np.float32)[:, None, None, None]
    constants = {
        "w0": generator.normal(size=(8, 3, 3, 3)).astype(np.float32) * reach,
        "w1": generator.normal(size=(8, 1, 3, 3)).astype(np.float32) / reach,
        "w2": generator.normal(size=(4, 8, 1, 1)).astype(np.float32),
    }
    nodes = [
        ("Conv", ["x", "w0"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Conv", ["b", "w1"], ["c"], {"group": 8}),
        ("Relu", ["c"], ["d"], {}),
        ("Conv", ["d", "w2"], ["y"], {}),
    ]
    model = network(nodes, {"x": [1, 3, 12, 12]}, {"y": [1, 4, 8, 8]}, constants)
    made = equalise(model, pictures(8))
    assert len(made.model.graph.node) == len(nodes)
    assert sqnr(outputs(model), outputs(made.model)) > 80
    recipe = Recipe(name="u8")
    plain, better = (quantize(each, calibration=pictures(8), recipe=recipe) for each in (model, made.model))
    assert sqnr(outputs(model), outputs(better)) > sqnr(outputs(model), outputs(plain)) + 6


def test_a_float_node_takes_the_undoing_with_it():
    model = equalise(silu_network(spread=200.0), pictures(8)).model
    left = nodes_to_quantize(model, Recipe(name="spared", float_nodes=frozenset({"Conv_0"})))
    assert not {"Conv_0", "Conv_0_undo", "Sigmoid_1", "Mul_2"} & set(left)
    assert "Conv_3" in left


@pytest.mark.parametrize("place", ["weight", "bias"])
def test_shared_constants_are_left_alone(place):
    model = silu_network(spread=200.0)
    model.graph.node.append(
        onnx.helper.make_node("Identity", ["w0" if place == "weight" else "b0"], ["copy"], name="other")
    )
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("copy"))
    assert "c0" not in equalise(model, pictures(4)).ranges


def test_the_function_of_a_scaled_tensor_is_no_function_of_one_number():
    model = equalise(silu_network(spread=200.0), pictures(8)).model
    assert Readers(model).seen_through("c0") is None
    assert [node.name for node in Readers(model).following("c0")] == ["Conv_0_undo", "Sigmoid_1", "Mul_2"]
