"""Histograms in bounded memory, and the ranges chosen from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdq_support import Nodes, network, pictures, silu_network

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx import ranges
from edgevision.host.quantize.onnx.ranges import BINS, Histogram, Range, Rule, choose, observe
from edgevision.host.quantize.onnx.seen import Readers


def histogram(values):
    values = np.asarray(values, np.float64)
    counts, _ = np.histogram(values[values != 0], BINS, (values.min(), values.max()))
    return Histogram(low=values.min(), high=values.max(), counts=counts.astype(float), zeros=float((values == 0).sum()))


def error(values, chosen, function=lambda x: x):
    step = (chosen.high - chosen.low) / 255
    low, high = np.rint(chosen.low / step) * step, np.rint(chosen.high / step) * step
    rounded = np.clip(np.rint(values / step) * step, low, high)
    return np.square(function(rounded) - function(values)).mean()


def silu(x):
    return x / (1 + np.exp(-x))


def test_both_passes_see_every_value_once():
    model = silu_network()
    seen = observe(model, ["x", "c0"], pictures(5))
    assert seen["c0"].counts.sum() + seen["c0"].zeros == 5 * 8 * 12 * 12
    values = np.concatenate([fed["x"].ravel() for fed in pictures(5)()])
    assert (seen["x"].low, seen["x"].high) == (values.min(), values.max())
    np.testing.assert_array_equal(seen["x"].counts.cumsum()[-1], values.size)


def test_groups_change_nothing(monkeypatch):
    model = silu_network()
    names = ["c0", "a0", "c1", "a1"]
    together = observe(model, names, pictures(3))
    monkeypatch.setattr(ranges, "GROUP_BYTES", 1)
    apart = observe(model, names, pictures(3))
    for name in names:
        np.testing.assert_array_equal(together[name].counts, apart[name].counts)


def test_exact_zeros_are_counted_apart():
    model = network([("Relu", ["x"], ["y"], {})], {"x": [1, 3, 12, 12]}, {"y": [1, 3, 12, 12]})
    seen = observe(model, ["y"], pictures(4))["y"]
    values = np.concatenate([fed["x"].ravel() for fed in pictures(4)()])
    assert seen.zeros == (values <= 0).sum()


def test_no_pictures_and_no_numbers_are_told():
    with pytest.raises(ModelError, match="no calibration picture"):
        observe(silu_network(), ["c0"], list)
    broken = [{"x": np.full((1, 3, 12, 12), np.inf, np.float32)}]
    with pytest.raises(ModelError, match="'x' became inf"):
        observe(silu_network(), ["x"], lambda: broken)


@given(
    low=st.floats(-50, 50),
    width=st.floats(1e-3, 100),
    rule=st.sampled_from(list(Rule)),
    symmetric=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_range_holds_zero_and_lies_within_what_was_seen(low, width, rule, symmetric, seed):
    values = np.random.default_rng(seed).uniform(low, low + width, 500)
    chosen = choose(histogram(values), rule, symmetric=symmetric)
    slack = 1e-6 * max(1, abs(low), width)
    reach = max(abs(values.min()), abs(values.max())) + slack
    assert -reach <= chosen.low <= 0 <= chosen.high <= reach
    if symmetric:
        assert chosen.low == -chosen.high
    else:
        assert chosen.low >= min(values.min(), 0) - slack
        assert chosen.high <= max(values.max(), 0) + slack


@given(seed=st.integers(0, 200), heavy=st.floats(3, 9))
def test_least_error_is_no_worse_than_all_that_was_seen(seed, heavy):
    values = np.random.default_rng(seed).standard_t(heavy, 4000)
    found = histogram(values)
    assert error(values, choose(found, Rule.MSE)) <= 1.1 * error(values, choose(found, Rule.MINMAX))


def test_a_range_is_judged_after_silu():
    values = np.random.default_rng(0).normal(-10, 8, 20000)
    found = histogram(values)
    plain, through = choose(found, Rule.MSE), choose(found, Rule.MSE, seen_through=silu)
    assert plain.low < -20
    assert -8 < through.low < -2
    assert error(values, through, silu) < 0.25 * error(values, plain, silu)


def test_percentile_leaves_the_outlier_out():
    values = np.concatenate([np.random.default_rng(0).uniform(0, 1, 10**6), [1000.0]])
    assert choose(histogram(values), Rule.PERCENTILE).high < 2
    assert choose(histogram(values), Rule.MINMAX).high == 1000


def test_a_constant_tensor_has_a_range():
    assert choose(histogram(np.full(10, 3.0)), Rule.MSE) == Range(low=0.0, high=3.0)


def test_a_range_without_zero_is_refused():
    with pytest.raises(ValueError, match="must hold 0"):
        Range(low=1.0, high=2.0)


def test_the_function_that_a_tensor_is_seen_through():
    x = np.linspace(-8, 8, 50)
    function = Readers(silu_network()).seen_through("c0")
    assert function is not None
    np.testing.assert_allclose(function(x), silu(x), atol=1e-5)


def test_hard_swish_in_pieces_is_one_function():
    constants = {"three": np.float32(3), "zero": np.float32(0), "six": np.array([6], np.float32)}
    nodes: Nodes = [
        ("Add", ["x", "three"], ["a"], {}),
        ("Clip", ["a", "zero", "six"], ["b"], {}),
        ("Mul", ["x", "b"], ["c"], {}),
        ("Div", ["c", "six"], ["y"], {}),
    ]
    function = Readers(network(nodes, {"x": [1, 4]}, {"y": [1, 4]}, constants)).seen_through("x")
    assert function is not None
    x = np.linspace(-8, 8, 50)
    np.testing.assert_allclose(function(x), x * np.clip(x + 3, 0, 6) / 6, atol=1e-5)


def test_a_tensor_that_something_else_reads_too_is_seen_as_it_is():
    nodes: Nodes = [("Sigmoid", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {}), ("Softmax", ["x"], ["z"], {})]
    model = network(nodes, {"x": [1, 4]}, {"y": [1, 4], "z": [1, 4]})
    assert Readers(model).seen_through("x") is None
