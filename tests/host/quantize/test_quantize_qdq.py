"""Whole recipes: what the files hold, what ONNX Runtime makes of them, and what accuracy is left."""

from typing import Literal

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from qdq_support import network, pictures, run, silu_network, sqnr

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.fusion import integer_share
from edgevision.host.quantize.onnx.prepare import prepare
from edgevision.host.quantize.onnx.qdq import Recipe, nodes_to_quantize, observe_all, quantize
from edgevision.host.quantize.onnx.ranges import Range
from edgevision.host.quantize.onnx.weights import PAIR_TOP, channel_axis, is_pair_safe, weight_scales

U8 = Recipe(name="u8")
S8 = Recipe(name="s8", signed=True)
TENSORRT = Recipe(name="trt", signed=True, symmetric=True, inputs_only=True)


def made(model, recipe, **options):
    return quantize(model, calibration=pictures(8), recipe=recipe, **options)


def constants_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def outputs(model, count=4):
    return np.concatenate([run(model, fed)[0].ravel() for fed in pictures(count, seed=99)()])


@pytest.mark.parametrize("recipe", [U8, S8, TENSORRT, Recipe(name="pair", pair_safe=True)])
def test_little_is_lost(recipe):
    model = silu_network()
    assert sqnr(outputs(model), outputs(made(model, recipe))) > 24


def test_all_but_the_last_convolution_become_integer_kernels():
    content = made(silu_network(), U8).SerializeToString()
    integer, convolutions, operators = integer_share(content, signed_allowed=False)
    assert (integer, convolutions) == (2, 3)
    assert operators["QLinearSigmoid"] == operators["QLinearMul"] == 2


def test_signed_activations_are_integer_kernels_only_where_they_are_allowed():
    content = made(silu_network(), S8).SerializeToString()
    assert integer_share(content, signed_allowed=True)[0] == 2


def test_the_last_convolution_becomes_one_too_when_asked_for():
    content = made(silu_network(), Recipe(name="all", float_last="none")).SerializeToString()
    assert integer_share(content, signed_allowed=False)[:2] == (3, 3)


def test_only_boxes_stay_in_float_where_scores_may_be_integer():
    generator = np.random.default_rng(0)
    constants = {f"w{i}": generator.normal(size=(3, 3, 1, 1)).astype(np.float32) for i in range(3)}
    nodes = [
        ("Conv", ["x", "w0"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Conv", ["b", "w1"], ["boxes"], {}),
        ("Conv", ["b", "w2"], ["logits"], {}),
        ("Sigmoid", ["logits"], ["scores"], {}),
        ("Concat", ["boxes", "scores"], ["y"], {"axis": 1}),
    ]
    model = network(nodes, {"x": [1, 3, 12, 12]}, {"y": [1, 6, 12, 12]}, constants)
    choices: tuple[tuple[Literal["all", "unbounded", "none"], int], ...] = (("all", 1), ("unbounded", 2), ("none", 3))
    for choice, expected in choices:
        content = made(model, Recipe(name=choice, float_last=choice)).SerializeToString()
        assert integer_share(content, signed_allowed=False)[:2] == (expected, 3)


def test_a_node_left_in_float_takes_its_activation_with_it():
    recipe = Recipe(name="spared", float_nodes=frozenset({"Conv_3"}))
    assert nodes_to_quantize(silu_network(), recipe) == ["Conv_0", "Sigmoid_1", "Mul_2"]
    integer, _, operators = integer_share(made(silu_network(), recipe).SerializeToString(), signed_allowed=False)
    assert integer == 1
    assert operators["QLinearSigmoid"] == 1


def test_types_are_the_recipe_s():
    for recipe, kind in ((U8, np.uint8), (S8, np.int8)):
        model = made(silu_network(), recipe)
        held = constants_of(model)
        points = [held[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
        assert {point.dtype for point in points} == {np.dtype(kind)}


def test_tensorrt_gets_zero_points_of_zero_and_float_biases():
    model = made(silu_network(), TENSORRT)
    held = constants_of(model)
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert held[node.input[2]].dtype == np.int8
            assert not held[node.input[2]].any()
        if node.op_type == "Conv" and len(node.input) > 2:
            assert held[node.input[2]].dtype == np.float32
    explicit = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= explicit


def test_a_classifier_ends_in_an_integer_product_with_a_float_result():
    generator = np.random.default_rng(3)
    constants = {
        "w": generator.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
        "f": generator.normal(size=(5, 8)).astype(np.float32),
        "fb": generator.normal(size=5).astype(np.float32),
    }
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("Clip", ["c", "zero", "six"], ["r"], {}),
        ("GlobalAveragePool", ["r"], ["p"], {}),
        ("Flatten", ["p"], ["v"], {}),
        ("Gemm", ["v", "f", "fb"], ["y"], {"transB": 1}),
    ]
    model = network(nodes, {"x": [1, 3, 12, 12]}, {"y": [1, 5]}, constants)
    quantised = made(model, U8)
    assert sqnr(outputs(model), outputs(quantised)) > 25
    _, _, operators = integer_share(quantised.SerializeToString(), signed_allowed=False)
    assert {"QLinearConv", "QLinearGlobalAveragePool", "QGemm"} <= operators.keys()
    assert not {"Conv", "Gemm", "Clip", "GlobalAveragePool"} & operators.keys()
    assert next(iter(quantised.graph.output)).name == "y"


def test_inputs_and_observations_can_be_given():
    model = silu_network()
    seen = observe_all(model, pictures(8))
    quantised = made(model, U8, observed=seen, fixed_ranges={"x": Range(low=-4.0, high=4.0)})
    assert constants_of(quantised)["x_scale"] == np.float32(8 / 255)
    with pytest.raises(ModelError, match="no calibration picture"):
        quantize(model, calibration=list, recipe=U8)


def test_the_model_itself_is_left_alone():
    model = silu_network()
    before = model.SerializeToString()
    made(model, U8)
    assert model.SerializeToString() == before


def test_the_same_pictures_give_the_same_bytes():
    assert made(silu_network(), U8).SerializeToString() == made(silu_network(), U8).SerializeToString()


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), columns=st.integers(1, 40), tail=st.floats(1.1, 30))
def test_pair_safe_scales_are_safe_and_no_coarser_than_half(seed, columns, tail):
    weight = np.random.default_rng(seed).standard_t(tail, (6, columns)).astype(np.float32)
    scale = weight_scales(weight, axis=0, pair_safe=True)
    steps = np.rint(weight / scale[:, None]).astype(np.int8)
    assert is_pair_safe(steps, axis=0)
    assert (scale <= 2.001 * weight_scales(weight, axis=0, pair_safe=False)).all()


def test_unsafe_pairs_are_seen():
    assert is_pair_safe(np.array([[64, 64, -127]], np.int8), axis=0)
    assert not is_pair_safe(np.array([[65, 64, -127]], np.int8), axis=0)
    assert not is_pair_safe(np.array([[-65, -64, 127]], np.int8), axis=0)
    assert PAIR_TOP * 255 <= 32767 < (PAIR_TOP + 1) * 255


def test_every_weight_of_a_pair_safe_file_is_safe():
    model = made(silu_network(), Recipe(name="pair", pair_safe=True))
    held = constants_of(model)
    maker = {node.output[0]: node for node in model.graph.node}
    layers = [n for n in model.graph.node if n.op_type == "Conv" and n.input[1] in maker]
    assert len(layers) == 2
    for layer in layers:
        assert is_pair_safe(held[maker[layer.input[1]].input[0]], axis=channel_axis(layer))


def test_a_dead_channel_s_bias_fits():
    weight = np.full((1, 4), 1e-9, np.float32)
    scale = weight_scales(weight, axis=0, pair_safe=False, bias=np.array([5.0]), input_scale=0.01)
    assert 5.0 / (scale[0] * 0.01) <= 2**28 * 1.001


def test_a_real_detector(shared):
    model = prepare((shared / "models" / "yolox_nano.onnx").read_bytes(), "yolox_nano")
    generator = np.random.default_rng(0)
    few = [{"images": generator.uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)}]
    quantised = quantize(model, calibration=lambda: few, recipe=Recipe(name="fast", correct_bias=False), threads=1)
    integer, convolutions, operators = integer_share(quantised.SerializeToString(), signed_allowed=False)
    assert (integer, convolutions) == (104, 113)
    assert operators["QLinearMul"] == 104
    kinds = {value.name: value.type.tensor_type.elem_type for value in quantised.graph.output}
    assert kinds == {"output": TensorProto.FLOAT}
    onnx.checker.check_model(quantised, full_check=True)
