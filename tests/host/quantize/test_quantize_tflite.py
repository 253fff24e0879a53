"""Float .tflite to INT8: the daemon's backend runs it, it is small, integer, the same each time, and near the float model."""

import hashlib
import logging
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("litert_quantizer", reason="needs litert-quantizer: pip install 'edgevision[host]'")
pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert: pip install 'edgevision[host]'")

from tflite_support import pictures, silu_network

from edgevision.errors import EdgevisionError, ModelError, UsageError
from edgevision.host.quantize.tflite import file as tflite_file
from edgevision.host.quantize.tflite import quantizer as tflite
from edgevision.host.quantize.tflite import ranges as tflite_ranges
from edgevision.host.quantize.tflite.bias import prepare_biases, rounded
from edgevision.host.quantize.tflite.equalize import equalize
from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.operators import CONVOLUTIONS
from edgevision.host.quantize.tflite.quantizer import (
    DYNAMIC,
    FLOAT16,
    FULL_INTEGER,
    MIXED,
    PLAIN,
    WEIGHT_ONLY,
    TfliteRecipe,
    quantize_tflite,
)
from edgevision.host.quantize.tflite.ranges import Range, measure
from edgevision.host.quantize.tflite.runner import Runner
from edgevision.host.quantize.tflite.sensitivity import layer_sqnr, worst_first
from edgevision.host.quantize.tflite.share import integer_share
from edgevision.inference import litert
from edgevision.inference.base import BackendContext, ModelFile


def quantized(content, recipe, calibration=None, **more):
    return quantize_tflite(content, calibration=calibration or pictures(), recipe=recipe, name="net", **more)


def backend(content):
    file = ModelFile(name="net", content=content, sha256=hashlib.sha256(content).hexdigest())
    return litert.create(litert.Options(), file, BackendContext())


def real_outputs(content, count=6):
    """Scores of pictures that no calibration saw, through the daemon's own backend, in real values."""
    runs = backend(content)
    (source,), (result,) = runs.inputs, runs.outputs
    found = []
    for sample in pictures(count, seed=77)():
        value = sample["picture"]
        if source.quantization is not None:
            steps = np.rint(value / source.quantization.scale) + source.quantization.zero_point
            value = np.clip(steps, -128, 127).astype(source.dtype)
        made = np.array(runs.run({source.name: value})[result.name])
        if result.quantization is not None:
            made = (made.astype(np.float32) - result.quantization.zero_point) * result.quantization.scale
        found.append(made)
    return np.stack(found)


def error(content, other):
    return float(np.sqrt(np.mean((real_outputs(content) - real_outputs(other)) ** 2)))


@pytest.fixture(scope="module")
def network():
    return silu_network()


def test_mixed_has_integer_convolutions_a_float_tail_and_int8_input(network):
    made = quantized(network, MIXED)
    share = integer_share(made)
    assert (share.integer, share.convolutions) == (3, 3)
    assert share.float_operators == {"DEQUANTIZE": 1, "LOGISTIC": 1}
    assert backend(made).inputs[0].dtype == np.int8
    assert backend(made).outputs[0].dtype == np.float32


def test_full_integer_has_no_float_tensor(network):
    made = quantized(network, FULL_INTEGER)
    assert not integer_share(made).float_operators
    assert {backend(made).inputs[0].dtype, backend(made).outputs[0].dtype} == {np.dtype(np.int8)}
    weights = [fact for fact in Graph(made, "net").facts() if fact.constant and fact.name == "stem_weight"]
    assert weights[0].scale is not None
    assert weights[0].scale.size == 16  # per channel


def test_float_input_where_the_recipe_says_so(network):
    made = quantized(network, replace(MIXED, inputs="float32"))
    assert backend(made).inputs[0].dtype == np.float32
    assert integer_share(made).operators["QUANTIZE"] >= 1


def test_equalised_channels_lose_far_less_than_plain_ones(network):
    assert error(quantized(network, MIXED), network) < 0.5 * error(quantized(network, PLAIN), network)


@pytest.mark.parametrize("residual", [False, True])
def test_equalising_changes_nothing_in_float(residual):
    content = silu_network(residual=residual)
    graph = Graph(content, "net")
    floors = equalize(graph, pictures(4))
    assert set(floors) == {"stem", "depthwise"}
    assert max(floors.values()) < 0
    np.testing.assert_allclose(real_outputs(graph.to_bytes()), real_outputs(content), atol=2e-5)
    assert not np.allclose(graph.constant(graph.operators()[0].weight), Graph(content, "net").constant(1))


def test_the_same_input_gives_the_same_bytes(network):
    assert quantized(network, MIXED) == quantized(network, MIXED)


def test_float16_weights_become_float32_first():
    content, half = silu_network(), silu_network(half=True)
    graph = Graph(half, "net")
    assert graph.unfold_float16() == 6
    assert "DEQUANTIZE" not in {step.kind for step in graph.operators()}
    assert not any(fact.type_name == "FLOAT16" for fact in graph.facts())
    np.testing.assert_allclose(real_outputs(graph.to_bytes()), real_outputs(half), atol=1e-5)
    assert integer_share(quantized(half, MIXED)).integer == 3
    assert error(quantized(half, MIXED), content) < 0.05


def with_rounded_weights(content):
    graph = Graph(content, "net")
    for step in graph.operators():
        if step.kind in CONVOLUTIONS:
            graph.set_constant(step.weight, rounded(graph.constant(step.weight), step.channel_axis))
    return graph.to_bytes()


def test_weight_only_computes_in_float_with_rounded_weights(network):
    made = quantize_tflite(network, calibration=None, recipe=WEIGHT_ONLY, name="net")
    assert integer_share(made).integer == 0
    assert {fact.type_name for fact in Graph(made, "net").facts() if fact.name == "stem_weight"} == {"INT8"}
    expected = with_rounded_weights(network)
    np.testing.assert_allclose(real_outputs(made), real_outputs(expected), atol=1e-3)
    assert error(expected, network) > 0.01  # rounding does something, so that the line above can fail


def test_dynamic_and_float16_need_no_calibration(network):
    dynamic, half = (
        quantize_tflite(network, calibration=None, recipe=recipe, name="net") for recipe in (DYNAMIC, FLOAT16)
    )
    assert integer_share(dynamic).integer == integer_share(half).integer == 0
    assert error(half, network) < 0.005
    assert error(dynamic, network) < 0.2
    assert {fact.type_name for fact in Graph(half, "net").facts() if fact.constant} == {"FLOAT16", "FLOAT32"}


def test_named_operators_stay_in_float(network):
    made = quantized(network, MIXED, float_operators=["head"])
    assert integer_share(made).integer == 2
    with pytest.raises(UsageError, match="haed"):
        quantized(network, MIXED, float_operators=["haed"])


def test_refusals_name_the_model_and_the_fix(network):
    made = quantized(network, MIXED)
    with pytest.raises(ModelError, match="'net': it is quantised already; start from the float model"):
        quantized(made, MIXED)
    with pytest.raises(ModelError, match=r"no \.tflite file"):
        quantized(b"PK\3\4" * 30, MIXED)
    with pytest.raises(UsageError, match="needs calibration pictures"):
        quantize_tflite(network, calibration=None, recipe=MIXED, name="net")
    with pytest.raises(UsageError, match="no calibration pictures"):
        quantized(network, MIXED, pictures(0))
    with pytest.raises(UsageError, match="'net': calibration gives tensors image; the model's inputs are picture"):
        quantized(network, MIXED, lambda: [{"image": np.zeros((1, 12, 12, 3), np.float32)}])
    for recipe in (PLAIN, MIXED):
        with pytest.raises(ModelError, match="infinite or NaN on calibration picture 1"):
            quantized(network, recipe, lambda: [{"picture": np.full((1, 12, 12, 3), np.nan, np.float32)}])
    with pytest.raises(UsageError, match="float tail"):
        TfliteRecipe(name="both", outputs="int8")


def test_a_file_over_2_gb_is_refused(network, monkeypatch):
    monkeypatch.setattr(tflite_file, "MAX_BYTES", len(network) - 1)
    with pytest.raises(ModelError, match="more than 2 GB"):
        quantized(network, MIXED)


def test_every_truncation_is_an_error_of_ours(network):
    for size in range(8, len(network) - 1, len(network) // 60):
        with pytest.raises(EdgevisionError):
            quantized(network[:size], PLAIN, pictures(1))


def refusal(content):
    try:
        Graph(content, "net")
    except ModelError as error:
        return str(error)
    return ""


def test_damage_inside_is_an_error_of_ours_or_does_not_matter(network):
    random = np.random.default_rng(5)
    said = []
    for _ in range(60):
        damaged = bytearray(network)
        for place in random.integers(8, len(network), 3):
            damaged[place] = random.integers(256)
        said.append(refusal(bytes(damaged)))
    assert sum(map(bool, said)) > 10
    assert not any("\n" in text for text in said)


def test_a_tensor_that_is_not_there_is_a_fault(network):
    graph = Graph(network, "net")
    graph.subgraph.operators[0].inputs = [0, 1, 900]
    assert "a tensor that is not there" in graph.fault()


def test_the_librarys_bars_warnings_and_logs_are_kept_back(capfd, caplog):
    # Its bar only shows for models of a hundred tensors, so it is played here.
    with caplog.at_level(logging.DEBUG), tflite._silence():
        sys.stderr.write("Applying Transformations: 100%")
        warnings.warn("experimental", UserWarning, stacklevel=1)
        logging.getLogger("absl").error("chatter")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_it_says_nothing(network, capfd, caplog):
    quantized(network, MIXED)
    capfd.readouterr()  # LiteRT says once per process that XNNPACK is there
    with caplog.at_level(logging.DEBUG):
        quantized(network, MIXED)
    assert [
        part
        for part in capfd.readouterr()
        if part.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "")
    ] == []
    assert not caplog.records
    assert logging.root.manager.disable == 0


def seen(values):
    counts, _ = np.histogram(values, tflite_ranges.BINS)
    return tflite_ranges._Seen(low=float(values.min()), high=float(values.max()), counts=counts)


def rounding_error(values, covered, function=lambda x: x):
    step = (covered.high - covered.low) / 255
    zero = np.rint(-covered.low / step)
    steps = np.clip(np.rint(values / step) + zero, 0, 255)
    return float(np.mean((function((steps - zero) * step) - function(values)) ** 2))


def test_the_mse_range_really_has_the_least_error():
    values = np.random.default_rng(0).laplace(0, 1, 200_000)
    chosen, percentile = (tflite_ranges._choose(seen(values), how, None) for how in ("mse", "percentile"))
    everything = Range(low=float(values.min()), high=float(values.max()))
    assert chosen.high < 0.95 * everything.high
    assert rounding_error(values, chosen) < 0.9 * rounding_error(values, everything)
    assert rounding_error(values, chosen) < rounding_error(values, percentile)


def test_what_silu_makes_nothing_of_gets_no_steps():
    values = np.random.default_rng(0).normal(-8, 6, 200_000)
    plain, aware = (tflite_ranges._choose(seen(values), "mse", how) for how in (None, tflite_ranges._silu))
    assert plain.low < -25 < -12 < aware.low < -3
    error = rounding_error(values, aware, tflite_ranges._silu)
    assert error < 0.5 * rounding_error(values, plain, tflite_ranges._silu)


def test_no_other_range_is_much_better_behind_silu():
    # A few large values beside many in the flat part: steps are worth little where the function is flat.
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(-9, 2, 190_000), random.uniform(0, 20, 10_000)])
    chosen = tflite_ranges._choose(seen(values), "mse", tflite_ranges._silu)
    lows, highs = values.min() * np.linspace(0.05, 1, 12), values.max() * np.linspace(0.5, 1, 12)
    best = min(rounding_error(values, Range(low=low, high=high), tflite_ranges._silu) for low in lows for high in highs)
    assert rounding_error(values, chosen, tflite_ranges._silu) < 1.1 * best


def test_inputs_and_outputs_keep_their_extremes(network):
    ranges = measure(Graph(network, "net"), pictures(), method="mse").ranges
    values = np.concatenate([sample["picture"].ravel() for sample in pictures()()])
    assert ranges["picture"].high == pytest.approx(float(values.max()))
    assert ranges["picture"].low == 0


def test_bias_correction_takes_out_the_mean_error_of_rounded_weights(network):
    graph = Graph(network, "net")
    measured = measure(graph, pictures(), method="min_max")
    head = next(step for step in graph.operators() if step.outputs == (graph.operators()[-1].inputs[0],))
    weight = graph.constant(head.weight)
    before = graph.constant(head.bias)
    assert prepare_biases(graph, measured.ranges, measured.channel_means) == 3
    moved = graph.constant(head.bias) - before
    runner, wanted = Runner(network, "net"), 0
    for sample in pictures()():
        runner.run(sample)
        read = runner.real(graph.tensor_name(head.data)).reshape(-1, weight.shape[3])
        wanted = wanted + (read @ (weight - rounded(weight, 0)).reshape(5, -1).T).mean(0) / 24
    np.testing.assert_allclose(moved, wanted, rtol=1e-2, atol=1e-6)


def test_a_channel_that_is_switched_off_gets_weights_that_its_bias_fits(network):
    graph = Graph(network, "net")
    head = graph.operators()[-2]
    weight, bias = graph.constant(head.weight), graph.constant(head.bias)
    weight[2], bias[2] = 1e-12, 3.0
    graph.set_constant(head.weight, weight)
    graph.set_constant(head.bias, bias)
    ranges = {graph.tensor_name(head.data): Range(low=-1, high=1)}
    prepare_biases(graph, ranges, {}, correct=False)
    lifted = graph.constant(head.weight)
    steps = bias[2] / (np.abs(lifted[2]).max() / 127 * 2 / 255)
    assert steps == pytest.approx(2**28, rel=1e-3)
    np.testing.assert_array_equal(np.delete(lifted, 2, 0), np.delete(weight, 2, 0))


def test_sensitivity_finds_the_layer_that_was_spoilt(network):
    graph = Graph(network, "net")
    step = graph.operators()[3]
    assert step.kind == "DEPTHWISE_CONV_2D"
    random = np.random.default_rng(1)
    weight = graph.constant(step.weight)
    graph.set_constant(step.weight, (weight + random.normal(0, 0.2, weight.shape)).astype(np.float32))
    layers = layer_sqnr(network, graph.to_bytes(), pictures(), name="net", pictures=2)
    by_name = {layer.tensor: layer for layer in layers}
    assert worst_first(layers)[0].tensor == "depthwise"
    assert by_name["a"].sqnr_db > 100 > 30 > by_name["depthwise"].sqnr_db


@pytest.mark.parametrize("residual", [False, True])
def test_sensitivity_compares_equalised_tensors_in_the_float_models_scale(residual):
    content = silu_network(residual=residual)
    layers = layer_sqnr(content, quantized(content, MIXED), pictures(), name="net", pictures=4)
    figures = {layer.tensor: layer.sqnr_db for layer in layers}
    assert {"stem", "a", "depthwise", "b", "head"} <= set(figures)
    assert min(figures[tensor] for tensor in ("a", "b", "scores")) > 25
    # Logits far out are cut on purpose; the layer is judged by its scores.
    assert figures["head"] == figures["scores"]
    assert figures["stem"] == figures["a"]


def test_real_models_are_read(shared):
    models = shared / "models"
    graph = Graph((models / "yolox_nano_float16.tflite").read_bytes(), "yolox")
    assert not graph.is_quantized()
    assert graph.unfold_float16() == 226
    assert {step.kind for step in graph.tail()} == {"LOGISTIC", "TRANSPOSE", "RESHAPE", "CONCATENATION"}
    share = integer_share((models / "yolov8n_int8_416_AGPL_test_only.tflite").read_bytes())
    assert share.integer == share.convolutions == 64
    with pytest.raises(ModelError, match="LiteRT refuses the file"):
        Graph((models / "person_detect_REFUSED.tflite").read_bytes(), "person")
