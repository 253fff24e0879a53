"""Which layers quantising hurts."""

import numpy as np
import pytest
from onnx import numpy_helper
from qdq_support import pictures, silu_network

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.fusion import integer_share
from edgevision.host.quantize.onnx.qdq import Recipe, observe_all, quantize
from edgevision.host.quantize.onnx.sensitivity import EXACT_DB, decibels, layer_sqnr, rank, worst


def test_a_spoiled_layer_is_seen():
    model = silu_network()
    quantised = quantize(model, calibration=pictures(8), recipe=Recipe(name="u8"))
    sound = dict(layer_sqnr(model, quantised, pictures(3)()))
    assert list(sound) == ["Conv_0", "Conv_3", "Conv_6"]
    assert min(sound.values()) > 20
    weight = next(t for t in quantised.graph.initializer if t.name == "w1_quantized")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
    spoiled = dict(layer_sqnr(model, quantised, pictures(3)()))
    assert spoiled["Conv_0"] == pytest.approx(sound["Conv_0"])
    assert spoiled["Conv_3"] < 5


def test_a_float_layer_is_exact():
    model = silu_network()
    assert dict(layer_sqnr(model, model, pictures(1)()))["Conv_0"] == EXACT_DB


def test_the_worst_layer_comes_first():
    # The depthwise layer reads channels that differ 200 times: it and the layer before do the damage.
    model = silu_network(spread=200.0)
    for recipe in (Recipe(name="u8"), Recipe(name="all", float_last="none")):
        ranked = rank(model, observe_all(model, pictures(8)), recipe, pictures(2)())
        assert {name for name, _ in ranked[:2]} == {"Conv_0", "Conv_3"}
        assert [db for _, db in ranked] == sorted(db for _, db in ranked)
        assert len(ranked) == (2 if recipe.float_last == "all" else 3)


def test_no_more_stay_in_float_than_may():
    model = silu_network()
    ranked = [("Conv_3", 1.0), ("Conv_0", 2.0), ("Conv_6", 3.0)]
    every, most = Recipe(name="none", float_last="none"), Recipe(name="all")
    assert worst(model, every, ranked, integer_share=0.6) == {"Conv_3"}
    assert worst(model, every, ranked, integer_share=0.3) == {"Conv_3", "Conv_0"}
    assert worst(model, most, ranked, integer_share=0.6) == frozenset()  # Conv_6 is in float already
    assert worst(model, every, ranked, integer_share=1.0) == frozenset()


def test_decibels():
    assert decibels(100.0, 1.0) == pytest.approx(20)
    assert decibels(1.0, 0.0) == EXACT_DB
    assert np.isfinite(decibels(0.0, 1.0))


def test_a_file_that_the_runtime_refuses_is_told():
    model = silu_network()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="ONNX Runtime refuses"):
        integer_share(model.SerializeToString(), signed_allowed=False)


def test_a_float_model_has_no_integer_convolution():
    integer, convolutions, operators = integer_share(silu_network().SerializeToString(), signed_allowed=False)
    assert (integer, convolutions) == (0, 3)
    assert sum(operators.values()) >= 3
