"""NNCF: what comes out is right in both runtimes, the same each time, and made in silence."""

import importlib.util
import logging
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx import nncf
from edgevision.host.quantize.onnx.harm import culprits, harm
from edgevision.host.quantize.onnx.nncf import Advanced, quantize_nncf
from edgevision.host.quantize.onnx.openvino_graph import integer_share
from edgevision.inference.base import BackendContext, ModelFile

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'edgevision[host]'")
# Not `importorskip`: importing NNCF is a part of what is tested.
if importlib.util.find_spec("nncf") is None:
    pytest.skip("needs NNCF: pip install 'edgevision[host]'", allow_module_level=True)
pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgevision[host]'")

SIDE, PICTURES = 24, 6
CONVOLUTIONS = ("stem", "deep", "left", "right", "join", "head")


def network(*, opset=17, uneven=1.0):
    """A stem, a depthwise layer, two branches that are joined, a head; SiLU behind each but the last.

    `uneven` makes the first channel that both branches read so many times as large as the others, and its weights as many
    times as small.
    """
    random = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []

    def conv(name, given, channels, size=1, group=1):
        weight = (
            random.normal(size=(channels[1], channels[0] // group, size, size)) / np.sqrt(channels[0] // group) / size
        )
        bias = random.normal(size=channels[1]) / 4
        if name == "deep":
            weight[0] *= uneven
        if name in {"left", "right"}:
            weight[:, 0] /= uneven
        weights.extend(
            onnx.numpy_helper.from_array(array.astype(np.float32), f"{name}.{kind}")
            for kind, array in (("weight", weight), ("bias", bias))
        )
        nodes.append(
            onnx.helper.make_node(
                "Conv", [given, f"{name}.weight", f"{name}.bias"], [f"{name}.out"], name,
                kernel_shape=[size, size], pads=[size // 2] * 4, group=group,
            )
        )  # fmt: skip
        return f"{name}.out"

    def silu(given):
        name = given.partition(".")[0]
        nodes.append(onnx.helper.make_node("Sigmoid", [given], [f"{name}.gate"], f"{name}.sigmoid"))
        nodes.append(onnx.helper.make_node("Mul", [given, f"{name}.gate"], [f"{name}.silu"], f"{name}.mul"))
        return f"{name}.silu"

    trunk = silu(conv("deep", silu(conv("stem", "image", (3, 16), 3)), (16, 16), 3, 16))
    branches = [silu(conv("left", trunk, (16, 16))), silu(conv("right", trunk, (16, 16)))]
    nodes.append(onnx.helper.make_node("Concat", branches, ["both"], "concat", axis=1))
    end = conv("head", silu(conv("join", "both", (32, 16))), (16, 8))
    nodes.append(onnx.helper.make_node("Sigmoid", [end], ["scores"], "scores"))
    image = onnx.helper.make_tensor_value_info("image", 1, [1, 3, SIDE, SIDE])
    scores = onnx.helper.make_tensor_value_info("scores", 1, [1, 8, SIDE, SIDE])
    graph = onnx.helper.make_graph(nodes, "network", [image], [scores], weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def pictures(seed=0):
    random = np.random.default_rng(seed)
    for _ in range(PICTURES):
        yield {"image": random.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)}


def results(model, plugin):
    module = __import__(f"edgevision.inference.{plugin}", fromlist=["create"])
    content = model.SerializeToString()
    backend = module.create(module.Options(), ModelFile(name="m", content=content, sha256=""), BackendContext())
    return np.concatenate([backend.run(picture)["scores"].copy() for picture in pictures(seed=1)])


def quantised_layers(model):
    made = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    return {node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in made}


@pytest.fixture(scope="module")
def made():
    """A float model and what NNCF makes of it."""
    model = network()
    before = model.SerializeToString()
    quantised = quantize_nncf(model, pictures, ignored_nodes=["scores"], subset_size=PICTURES)
    assert model.SerializeToString() == before  # what was given stays as it was
    return model, quantised


def test_all_layers_are_integers_where_openvino_runs_them(made):
    model, quantised = made
    onnx.checker.check_model(quantised)
    assert quantised_layers(quantised) == set(CONVOLUTIONS)
    assert [value.name for value in quantised.graph.output] == ["scores"]
    integer, total, counts = integer_share(quantised.SerializeToString())
    assert (integer, total) == (6, 6)
    assert counts["Convolution u8"] == 6
    assert integer_share(model.SerializeToString())[:2] == (0, 6)


def test_both_runtimes_give_nearly_the_float_model_s_result(made):
    model, quantised = made
    exact = results(model, "onnxrt")
    for plugin in ("onnxrt", "openvino"):
        assert np.abs(results(quantised, plugin) - exact).mean() < 0.01


def test_activations_are_unsigned(made):
    _, quantised = made
    constants = {tensor.name: tensor.data_type for tensor in quantised.graph.initializer}
    zeros = [constants[node.input[2]] for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert set(zeros) == {onnx.TensorProto.UINT8}


def test_the_same_pictures_give_the_same_bytes(made):
    model, quantised = made
    again = quantize_nncf(model, pictures, ignored_nodes=["scores"], subset_size=PICTURES)
    assert again.SerializeToString(deterministic=True) == quantised.SerializeToString(deterministic=True)

    def one_buffer():
        buffer = {"image": np.empty((1, 3, SIDE, SIDE), np.float32)}
        for picture in pictures():
            buffer["image"][:] = picture["image"]
            yield buffer
        buffer["image"][:] = 1e9

    again = quantize_nncf(model, one_buffer, ignored_nodes=["scores"], subset_size=PICTURES)
    assert again.SerializeToString(deterministic=True) == quantised.SerializeToString(deterministic=True)


def test_nothing_is_printed_and_the_logger_class_stays(made, capfd):
    quantize_nncf(made[0], pictures, subset_size=2)
    assert capfd.readouterr() == ("", "")
    assert logging.getLoggerClass() is logging.Logger


def test_the_process_keeps_its_own_handlers_as_they_are(made):
    root = logging.getLogger()
    before = [(handler, handler.level) for handler in root.handlers]
    quantize_nncf(made[0], pictures, subset_size=2)
    assert before
    assert [(handler, handler.level) for handler in root.handlers] == before
    assert not logging.getLogger("edgevision").disabled


def test_no_figures_are_sent_home():
    # Pytest's own presence would switch them off.
    code = (
        "import os, socket; from edgevision.host.quantize.onnx.nncf import _nncf\n"
        "def refuse(*_): raise SystemExit('tried to reach the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "_nncf(); from nncf.telemetry import telemetry\n"
        "print(type(telemetry).__name__, 'NNCF_CI' in os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["MagicMock", "False"]


def test_layers_that_are_ignored_stay_float(made):
    quantised = quantize_nncf(made[0], pictures, subset_size=2, ignored_nodes=["left", "scores"])
    assert quantised_layers(quantised) == set(CONVOLUTIONS) - {"left"}


def test_options_reach_nncf(made):
    model, quantised = made
    plain = quantised.SerializeToString(deterministic=True)
    for options in (
        {"preset": "performance"},
        {"overflow_fix": "enable"},
        {"advanced": Advanced(activation_range="min_max")},
        {"advanced": Advanced(activation_range="percentile", activation_percentile=99.0)},
    ):
        other = quantize_nncf(model, pictures, ignored_nodes=["scores"], subset_size=PICTURES, **options)
        assert other.SerializeToString(deterministic=True) != plain, options


def test_a_layer_that_makes_most_of_the_error_is_found_and_spared(monkeypatch):
    said = []
    monkeypatch.setattr(nncf.log, "info", lambda *line: said.append(line))
    model = network(uneven=200.0)
    plain = quantize_nncf(model, pictures, ignored_nodes=["scores"], subset_size=PICTURES)
    found = harm(model, plain, list(pictures())[:2])
    assert {name for name, _ in found} == set(CONVOLUTIONS)
    assert set(culprits(found, 0.8)) == {"left", "right"}
    spared = quantize_nncf(model, pictures, ignored_nodes=["scores"], subset_size=PICTURES, spare_culprits=0.8)
    assert quantised_layers(spared) == set(CONVOLUTIONS) - {"left", "right"}
    assert "left" in said[0][1]
    exact = results(model, "onnxrt")
    errors = [np.abs(results(one, "openvino") - exact).mean() for one in (plain, spared)]
    assert errors[1] < errors[0] / 2


def test_few_stand_out_and_never_many():
    uneven = [("a", 0.6), ("b", 0.3), ("c", 0.05), ("d", 0.05)]
    assert culprits(uneven, 0.5) == ["a"]
    assert culprits(uneven, 0.8) == ["a", "b"]
    assert culprits(uneven, 1.0) == ["a", "b"]
    assert culprits([(name, 1.0) for name in "abcdefghijkl"], 0.8) == []
    wide = [(f"{number}", 2.0) for number in range(50)] + [(f"{number}", 1.0) for number in range(50, 100)]
    assert culprits(wide, 0.9) == ["0", "1", "2", "3", "4"]
    assert culprits([], 0.8) == []


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        (lambda: iter(()), "nncf: "),
        (lambda: [{"picture": np.zeros((1, 3, SIDE, SIDE), np.float32)}], "nncf: .*image"),
        (lambda: [{"image": np.zeros((1, 3, 5, 5), np.float32)}], "nncf: .*image"),
    ],
    ids=["none", "another name", "another size"],
)
def test_calibration_that_does_not_fit_is_a_model_error(made, calibration, said):
    with pytest.raises(ModelError, match=said) as caught:
        quantize_nncf(made[0], calibration)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_quantised_well_is_refused(made):
    with pytest.raises(ModelError, match=r"nncf: the model is of opset 11; per-channel weights need 13"):
        quantize_nncf(network(opset=11), pictures)
    with pytest.raises(ModelError, match="ignored_nodes: the model has no node 'tail'"):
        quantize_nncf(made[0], pictures, ignored_nodes=["tail"])


def test_what_openvino_refuses_has_no_share():
    with pytest.raises(
        ModelError, match=r"^the quantised model cannot be used: OpenVINO says: Unable to read the model$"
    ):
        integer_share(b"no model")
