"""Model files read without their libraries: the same content as with them; a damaged file is an error and no more."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.errors import ModelError
from edgevision.graphs import Tensor, ir, read
from edgevision.graphs._tflite_names import OPERATORS, TYPES

FILES = (
    "yolox_nano.onnx",
    "nanodet_m_320.onnx",
    "picodet_s_416_coco.onnx",
    "mobilenet_v2_1.0_224_quant.tflite",
    "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite",
    "yolov8n_int8_416_AGPL_test_only.tflite",
)


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".onnx")])
def test_an_onnx_file_is_what_its_own_library_reads(shared, file):
    onnx = pytest.importorskip("onnx")
    content = (shared / "models" / file).read_bytes()
    graph, wanted = read(content, file), onnx.load_from_string(content)
    assert [(node.op, node.name, node.inputs, node.outputs) for node in graph.nodes] == [
        (node.op_type, node.name, tuple(node.input), tuple(node.output)) for node in wanted.graph.node
    ]
    for node, other in zip(graph.nodes, wanted.graph.node, strict=True):
        for attribute in other.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            if isinstance(value, onnx.TensorProto):
                assert node.attributes[attribute.name].shape == tuple(value.dims)
            else:
                expected = tuple(value) if isinstance(value, list) else value
                assert node.attributes.get(attribute.name, ()) == expected
    for initializer in wanted.graph.initializer:
        tensor = graph.tensors[initializer.name]
        array = onnx.numpy_helper.to_array(initializer)
        assert (tensor.shape, tensor.dtype, tensor.constant) == (array.shape, str(array.dtype), True)
        if tensor.content is not None:
            assert bytes(tensor.content) == array.tobytes()
    assert graph.opsets == {entry.domain: entry.version for entry in wanted.opset_import}
    assert graph.parameters == sum(int(np.prod(one.dims)) for one in wanted.graph.initializer)
    assert [tensor.name for tensor in graph.outputs] == [one.name for one in wanted.graph.output]


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".tflite")])
def test_a_tflite_file_is_what_the_schema_s_classes_read(shared, file):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    content = (shared / "models" / file).read_bytes()
    graph, wanted = read(content, file), schema.ModelT.InitFromPackedBuf(content, 0)
    part = wanted.subgraphs[0]
    names = [tensor.name for tensor in graph.tensors.values()]
    assert names == [tensor.name.decode() for tensor in part.tensors]
    for tensor, other in zip(graph.tensors.values(), part.tensors, strict=True):
        data = wanted.buffers[other.buffer].data
        assert tensor.shape == tuple(other.shapeSignature if other.shapeSignature is not None else other.shape)
        assert TYPES[other.type] == tensor.dtype
        assert tensor.constant is (data is not None and len(data) > 0)
        assert not tensor.constant or tensor.content == memoryview(bytes(data))
        scale = None if other.quantization is None else other.quantization.scale
        assert tensor.scales == (0 if scale is None else len(scale))
    for node, other in zip(graph.nodes, part.operators, strict=True):
        assert node.inputs == tuple("" if i < 0 else names[i] for i in other.inputs)
        assert node.outputs == tuple(names[i] for i in other.outputs)
    assert [tensor.name for tensor in graph.inputs] == [names[i] for i in part.inputs]
    assert {name.decode() for name in (one.name for one in wanted.metadata or [])} <= set(graph.metadata)


def test_names_are_the_schema_s():
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    for known, enumeration in ((OPERATORS, schema.BuiltinOperator), (TYPES, schema.TensorType)):
        for name, number in vars(enumeration).items():
            if not name.startswith("_") and number < len(known):
                assert known[number] == (name.lower() if known is TYPES else name)


def test_custom_operators_go_by_their_own_names(shared):
    file = "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
    graph = read((shared / "models" / file).read_bytes(), file)
    assert graph.operators["TFLite_Detection_PostProcess"] == 1
    assert graph.blobs["TFLITE_METADATA"][4:8] == b"M001"


def made(nodes, **more):
    onnx = pytest.importorskip("onnx")
    x = onnx.helper.make_tensor_value_info("x", 1, ["N", 3, "H", 4])
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [x]), **more)


def test_open_sizes_metadata_domains_and_inner_graphs():
    onnx = pytest.importorskip("onnx")
    inner = made([onnx.helper.make_node("NonMaxSuppression", ["a", "b"], ["c"], domain="com.own")]).graph
    model = made([onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)])
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    graph = read(model.SerializeToString(), "m")
    assert graph.inputs[0].shape == (-1, 3, -1, 4)
    assert graph.metadata == {"names": "{0: 'cat'}"}
    assert graph.operators == {"If": 1, "com.own.NonMaxSuppression": 2}
    assert Tensor(name="t", dtype="float32", shape=(-1, 3)).elements == 0


def test_graphs_within_graphs_have_an_end():
    onnx = pytest.importorskip("onnx")
    model = made([onnx.helper.make_node("Relu", ["x"], ["x"])])
    for _ in range(20):
        model = made([onnx.helper.make_node("If", ["x"], ["y"], then_branch=model.graph)])
    with pytest.raises(ModelError, match="more than 16 deep"):
        read(model.SerializeToString(), "m")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_graph_or_a_clear_error(content):
    for beginning in (b"", b"\x1c\0\0\0TFL3", b"<net>"):
        try:
            read(beginning + content, "m.bin")
        except ModelError as failure:
            assert "m.bin: is " in str(failure)  # noqa: PT017  it may also be a graph


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 32), file=st.sampled_from(["nanodet_m_320.onnx", "mobilenet_v2_1.0_224_quant.tflite"]))
def test_damaged_files_are_a_graph_or_a_clear_error(shared, seed, file):
    chance = random.Random(seed)
    content = bytearray(_read(shared / "models" / file))
    # Where the structure is: an .onnx file's nodes come first, a .tflite file's tables last.
    low, high = (0, 60_000) if file.endswith(".onnx") else (len(content) - 60_000, len(content))
    for _ in range(chance.randint(1, 8)):
        content[chance.randrange(low, high) if chance.random() < 0.8 else chance.randrange(64)] = chance.randrange(256)
    if chance.random() < 0.2:
        del content[chance.randrange(len(content)) :]
    try:
        read(bytes(content), file)
    except ModelError as failure:
        assert str(failure).startswith(file)  # noqa: PT017  it may also be a graph


_cache: dict[Path, bytes] = {}


def _read(path):
    return _cache.setdefault(path, path.read_bytes())


IR = b"""<?xml version="1.0"?><net name="n" version="11"><layers>
<layer id="0" name="x" type="Parameter"><output><port id="0" precision="FP32"><dim>1</dim><dim>-1</dim></port></output></layer>
<layer id="1" name="w" type="Const"><data element_type="f32" shape="2,3" offset="0" size="24"/>
<output><port id="0" precision="FP32"><dim>2</dim><dim>3</dim></port></output></layer>
<layer id="2" name="m" type="MatMul"><input><port id="0"/><port id="1"/></input>
<output><port id="2" precision="FP32"><dim>1</dim><dim>3</dim></port></output></layer>
<layer id="3" name="r" type="Result"><input><port id="0"/></input></layer></layers><edges>
<edge from-layer="0" from-port="0" to-layer="2" to-port="0"/><edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
<edge from-layer="2" from-port="2" to-layer="3" to-port="0"/></edges></net>"""


def test_openvino_s_files_are_one_and_read_as_one():
    graph = read(ir.join(IR, bytes(24)), "m")
    assert [(tensor.name, tensor.shape) for tensor in graph.inputs] == [("x", (1, -1))]
    assert [(node.op, node.inputs, node.outputs) for node in graph.nodes] == [("MatMul", ("x", "w"), ("m",))]
    assert [tensor.name for tensor in graph.outputs] == ["m"]
    assert (graph.parameters, graph.format) == (6, "openvino")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (IR + b"\0" + bytes(23), "lie behind the file"),
        (IR[:300] + b"\0", "its XML is broken"),
        (b"<html/>", "holds <html> and no <net>"),
        (b"<net/>", "has no layers"),
        (b"<!DOCTYPE net [<!ENTITY a 'b'>]><net>&a;</net>", "has a document type"),
    ],
)
def test_a_damaged_ir_file_is_a_clear_error(content, words):
    with pytest.raises(ModelError, match=words):
        read(content, "m.ir")


def test_two_files_that_are_none():
    with pytest.raises(ValueError, match="no XML"):
        ir.join(b"hello", b"")
