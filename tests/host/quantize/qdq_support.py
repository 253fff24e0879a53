"""Small networks, and what several tests look at."""

from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Nodes: TypeAlias = list[tuple[str, list[str], list[str], dict[str, Any]]]


def network(nodes, inputs, outputs, constants=(), opset=17):
    """nodes: (kind, inputs, outputs, attributes); inputs and outputs: {name: shape}."""
    made = [
        helper.make_node(kind, reads, gives, name=f"{kind}_{index}", **attributes)
        for index, (kind, reads, gives, attributes) in enumerate(nodes)
    ]
    model = helper.make_model(
        helper.make_graph(
            made,
            "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in dict(constants).items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    return onnx.shape_inference.infer_shapes(model)


def silu_network(seed=0, *, channels=8, spread=1.0, size=12):
    """Conv, SiLU, depthwise Conv, SiLU, Conv, reshape; `spread` is how many times channels differ."""
    generator = np.random.default_rng(seed)
    reach = np.geomspace(1, spread, channels).astype(np.float32)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    constants = {
        "w0": normal(channels, 3, 3, 3) * 0.3 * reach[:, None, None, None],
        "b0": normal(channels) * 0.3,
        "w1": normal(channels, 1, 3, 3) / reach[:, None, None, None],
        "b1": normal(channels) * 0.3,
        "w2": normal(4, channels, 1, 1),
        "flat": np.array([1, -1], np.int64),
    }
    nodes = [
        ("Conv", ["x", "w0", "b0"], ["c0"], {"pads": [1] * 4}),
        ("Sigmoid", ["c0"], ["s0"], {}),
        ("Mul", ["c0", "s0"], ["a0"], {}),
        ("Conv", ["a0", "w1", "b1"], ["c1"], {"pads": [1] * 4, "group": channels}),
        ("Sigmoid", ["c1"], ["s1"], {}),
        ("Mul", ["c1", "s1"], ["a1"], {}),
        ("Conv", ["a1", "w2"], ["c2"], {}),
        ("Reshape", ["c2", "flat"], ["y"], {}),
    ]
    return network(nodes, {"x": [1, 3, size, size]}, {"y": [1, 4 * size * size]}, constants)


def pictures(count=8, *, seed=0, size=12, name="x", low=-1.0, high=1.0):
    made = np.random.default_rng(seed).uniform(low, high, (count, 1, 3, size, size)).astype(np.float32)

    def calibration():
        for picture in made:
            yield {name: picture}

    return calibration


def run(model, tensors, **entries):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, tensors)


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())
