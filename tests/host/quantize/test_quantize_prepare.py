"""Bringing float models into one form."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from qdq_support import network, run, silu_network

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.prepare import OPSET, prepare


def with_batch_norm(opset=11):
    generator = np.random.default_rng(1)
    constants = {
        "w": generator.normal(size=(4, 3, 3, 3)).astype(np.float32),
        **{name: generator.uniform(0.5, 2, 4).astype(np.float32) for name in ("scale", "shift", "mean", "var")},
    }
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"pads": [1] * 4}),
        ("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], {}),
        ("Relu", ["n"], ["y"], {}),
    ]
    return network(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, constants, opset=opset)


def test_batch_norm_is_folded_and_the_opset_raised():
    original = with_batch_norm()
    model = prepare(original.SerializeToString(), "norm.onnx")
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET}
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x})[0], run(original, {"x": x})[0], rtol=1e-4, atol=1e-4)


def test_every_node_has_a_name_of_its_own_and_every_tensor_a_type():
    original = silu_network()
    for node in original.graph.node:
        node.name = "same"
    model = prepare(original.SerializeToString(), "silu.onnx")
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    typed = {value.name for value in [*model.graph.value_info, *model.graph.output]}
    assert {name for node in model.graph.node for name in node.output} <= typed


def test_weights_listed_as_inputs_and_an_open_batch_are_mended():
    original = silu_network()
    original.graph.input.append(onnx.helper.make_tensor_value_info("w0", TensorProto.FLOAT, [8, 3, 3, 3]))
    original.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model = prepare(original.SerializeToString(), "silu.onnx")
    assert [value.name for value in model.graph.input] == ["x"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def open_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def external(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def quantised(model):
    model.graph.node[0].op_type = "QLinearConv"


def wrong_shape(model):
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 5, 3, 3), np.float32), "w0"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (open_size, r"dimension 2 is open \(height\)"),
        (external, "second file"),
        (quantised, "quantised already"),
        (wrong_shape, "ONNX Runtime cannot run it"),
    ],
)
def test_what_cannot_be_used_is_told(spoil, words):
    model = silu_network()
    spoil(model)
    with pytest.raises(ModelError, match=rf"silu\.onnx.*{words}"):
        prepare(model.SerializeToString(), "silu.onnx")


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"\xff" * 50, "not an ONNX file")])
def test_what_is_no_model_is_told(content, words):
    with pytest.raises(ModelError, match=words):
        prepare(content, "broken.onnx")


def test_a_cut_off_file_is_told():
    content = silu_network().SerializeToString()
    with pytest.raises(ModelError, match=r"cut short|no network"):
        prepare(content[: len(content) // 2], "cut.onnx")


@pytest.mark.parametrize("name", ["yolox_nano", "nanodet_m_320", "picodet_s_416_coco"])
def test_real_models(shared, name):
    model = prepare((shared / "models" / f"{name}.onnx").read_bytes(), name)
    assert {node.domain for node in model.graph.node} == {""}
    assert not {"BatchNormalization", "Constant", "Shape"} & {node.op_type for node in model.graph.node}
