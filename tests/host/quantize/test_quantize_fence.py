"""A layer that is left in float stays float in ONNX Runtime, and nothing else about the model changes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevision.host.quantize.onnx.fence import fence
from edgevision.host.quantize.onnx.fusion import integer_share

RANDOM = np.random.default_rng(5)
WEIGHTS = RANDOM.normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
WEIGHTS[0] *= 100  # one scale for all of them leaves the other channels next to nothing
PICTURE = RANDOM.integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)


def between_quantisers(*through):
    """uint8 [1, 3, 8, 8] -> dequantised -> convolution with float weights -> `through` -> quantised -> float."""
    nodes = [
        helper.make_node("DequantizeLinear", ["pixels", "in_scale", "zero"], ["real"], "first"),
        helper.make_node("Conv", ["real", "weights"], ["layer"], "layer", pads=[1] * 4),
    ]
    last = "layer"
    for kind in through:
        ends = ["low", "high"] if kind == "Clip" else []
        nodes.append(helper.make_node(kind, [last, *ends], [kind.lower()], kind))
        last = kind.lower()
    nodes += [
        helper.make_node("QuantizeLinear", [last, "out_scale", "zero"], ["steps"], "quantise"),
        helper.make_node("DequantizeLinear", ["steps", "out_scale", "zero"], ["result"], "last"),
    ]
    constants: dict[str, np.ndarray] = {
        "weights": WEIGHTS,
        "in_scale": np.array(1 / 255, np.float32),
        "out_scale": np.array(0.02, np.float32),
        "zero": np.array(0, np.uint8),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model, *, optimised=True):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": PICTURE})[0]


@pytest.mark.parametrize("through", [(), ("Relu",), ("Clip",), ("Relu", "Clip")])
def test_a_spared_layer_computes_what_the_float_layer_computes(through):
    model = between_quantisers(*through)
    exact = run(model, optimised=False)
    assert np.abs(run(model) - exact).max() > 0.1, "ONNX Runtime no longer quantises it: the fence may go"
    kept = fence(model)
    onnx.checker.check_model(kept, full_check=True)
    np.testing.assert_allclose(run(kept), exact, atol=0.0201)  # a step, where sums round otherwise
    assert integer_share(model.SerializeToString(), signed_allowed=False)[0] == 1
    assert integer_share(kept.SerializeToString(), signed_allowed=False)[0] == 0


def test_what_nobody_would_quantise_is_left_as_it_is():
    model = between_quantisers("Sigmoid")
    assert fence(model) is model
