"""ONNX to .tflite: what is missing is named, nothing is fetched, and a wrong result is refused."""

import importlib.util
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from tflite_support import SIDE_PX, Builder

from edgevision.errors import ModelError, PluginError
from edgevision.host.quantize.tflite import _onnx2tf_child, convert
from edgevision.host.quantize.tflite.convert import convert_onnx
from edgevision.host.quantize.tflite.graph import Graph


def onnx_network(*, batch=1, height=SIDE_PX, factor=1.0):
    """picture (1, 3, 12, 12) -> features (1, 4, 12, 12): a 1x1 convolution."""
    weight = (np.random.default_rng(0).normal(0, 1, (4, 3, 1, 1)) * factor).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["picture", "weight", "bias"], ["features"])],
        "net",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, 3, height, SIDE_PX])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, 4, height, SIDE_PX])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.ones(4, np.float32), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), weight


def tflite_network(weight):
    """The same as .tflite, as a converter writes it: NHWC and names of its own."""
    builder = Builder()
    source = builder.tensor("serving_default_picture:0", (1, SIDE_PX, SIDE_PX, 3))
    made = builder.convolution(source, weight.transpose(0, 2, 3, 1), np.ones(4), "PartitionedCall:0")
    assert schema is not None
    return builder.finish([source], [made])


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(convert, "_MODULES", ())


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setattr(convert, "_MODULES", ("no_such_converter",))
    with pytest.raises(PluginError, match=r"needs no_such_converter: pip install 'edgevision\[convert\]'"):
        convert_onnx(onnx_network()[0], name="net")


def test_a_right_conversion_gets_its_names_back_and_says_what_moved(monkeypatch, installed):
    content, weight = onnx_network()
    monkeypatch.setattr(convert, "_convert", lambda *_: tflite_network(weight))
    made = convert_onnx(content, name="net")
    assert made.difference < 1e-5
    assert set(made.moved) == {"picture", "features"}
    graph = Graph(made.content, "net")
    assert [graph.tensor_name(i) for i in (*graph.inputs, *graph.outputs)] == ["picture", "features"]


def test_a_wrong_conversion_is_refused(monkeypatch, installed):
    content, weight = onnx_network()
    monkeypatch.setattr(convert, "_convert", lambda *_: tflite_network(weight * np.float32(1.02)))
    with pytest.raises(ModelError, match="'net': the converted model computes something else: output 'features'"):
        convert_onnx(content, name="net")


def test_an_open_size_is_refused_before_anything_is_started(monkeypatch, installed):
    monkeypatch.setattr(convert, "_convert", lambda *_: pytest.fail("started"))
    with pytest.raises(ModelError, match="export it with a fixed size"):
        convert_onnx(onnx_network(height="height")[0], name="net")


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("import sys; print('ValueError: no such operator'); sys.exit(1)", "status 1.: ValueError: no such operator"),
        ("import os; os.abort()", "status -6"),
        ("pass", "it said nothing"),
    ],
)
def test_what_goes_wrong_in_the_child_is_one_line(monkeypatch, installed, child, said):
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _command, **more: run((sys.executable, "-c", child), **more))
    with pytest.raises(ModelError, match=said) as caught:
        convert_onnx(onnx_network()[0], name="net")
    assert "\n" not in str(caught.value)


def test_a_child_that_hangs_is_ended(monkeypatch, installed):
    run = subprocess.run
    hang = (sys.executable, "-c", "import time; time.sleep(60)")
    monkeypatch.setattr(subprocess, "run", lambda _command, **more: run(hang, **more))
    with pytest.raises(ModelError, match=r"more than 0\.2 s and was ended"):
        convert_onnx(onnx_network()[0], name="net", timeout_s=0.2)


def test_the_child_lays_out_the_sample_and_connects_nowhere(tmp_path):
    (tmp_path / "onnx2tf.py").write_text(
        "import pathlib, socket\n"
        "import numpy\n"
        "def convert(**options):\n"
        f"    sample = numpy.load({_onnx2tf_child._SAMPLE!r})\n"
        "    assert sample.shape == (20, 128, 128, 3) and sample.std() > 0\n"
        "    assert options['overwrite_input_shape'] == ['picture:1,3,12,12']\n"
        "    try:\n"
        "        socket.create_connection(('127.0.0.1', PORT), timeout=5)\n"
        "    except ConnectionRefusedError as error:\n"
        "        pathlib.Path('refused').write_text(str(error))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        fake = tmp_path / "onnx2tf.py"
        fake.write_text(fake.read_text().replace("PORT", str(server.getsockname()[1])))
        subprocess.run(
            [
                sys.executable,
                "-m",
                "edgevision.host.quantize.tflite._onnx2tf_child",
                "m.onnx",
                "out",
                '["picture:1,3,12,12"]',
            ],
            cwd=tmp_path,
            env={
                **convert._environment(),
                "PYTHONPATH": f"{tmp_path}{os.pathsep}{convert._environment()['PYTHONPATH']}",
            },
            check=True,
            timeout=60,
        )
    assert (tmp_path / "refused").read_text() == "a model is converted without a network"


@pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in convert._MODULES),
    reason="needs onnx2tf and TensorFlow: pip install 'edgevision[convert]'",
)
def test_a_real_conversion():
    made = convert_onnx(onnx_network()[0], name="net")
    assert made.difference < 1e-5
    assert "picture" in made.moved
