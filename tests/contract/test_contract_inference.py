"""What every backend must keep to. Each runs the smallest real thing it can."""

import subprocess
import sys

import numpy as np
import pytest

from edgevision import registry
from edgevision.errors import InferenceError, ModelError
from edgevision.inference import replay
from edgevision.inference.base import BackendContext, ModelFile
from edgevision.types import TensorSpec

PLUGINS = registry.available("inference")
MODELS = {
    "onnxrt": "yolox_nano.onnx",
    "litert": "mobilenet_v2_1.0_224_quant.tflite",
    "openvino": "yolox_nano.onnx",
}
RUNTIMES = {"onnxrt": "onnxruntime", "litert": "ai_edge_litert", "openvino": "openvino"}


def create(name, content, **options):
    module = registry.load("inference", name)
    return module.create(
        module.Options(**options), ModelFile(name="model", content=content, sha256=""), BackendContext()
    )


@pytest.fixture(scope="module", params=PLUGINS)
def made(request, tmp_path_factory):
    """A backend's name and what makes one."""
    name = request.param
    if name == "replay":
        path = tmp_path_factory.mktemp("replay") / "recording.npz"
        given = TensorSpec(name="image", shape=(1, 4, 4, 3), dtype=np.dtype(np.uint8), layout="NHWC")
        output = TensorSpec(name="out", shape=(1, 5), dtype=np.dtype(np.float32))
        replay.record(path, [given], [output], [{"out": np.arange(5, dtype=np.float32)[None]}])
        return name, lambda: create(name, b"", path=path)
    if name not in MODELS:
        pytest.fail(f"backend {name!r} has no model in this test: add one to MODELS")
    pytest.importorskip(RUNTIMES[name])
    shared = request.getfixturevalue("shared")
    content = (shared / "models" / MODELS[name]).read_bytes()
    return name, lambda: create(name, content)


def zeros(backend):
    return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in backend.inputs}


def test_results_are_what_the_specs_say(made):
    backend = made[1]()
    assert backend.inputs
    assert backend.outputs
    result = backend.run(zeros(backend))
    assert [*result] == [spec.name for spec in backend.outputs]
    for spec in backend.outputs:
        assert (result[spec.name].shape, result[spec.name].dtype) == (spec.shape, spec.dtype)
    assert all(spec.layout in ("NHWC", "NCHW") for spec in backend.inputs)


def test_where_the_nodes_run_adds_up_to_one_where_it_is_told(made):
    execution = getattr(made[1](), "execution", None)
    if execution is None:
        pytest.skip("this backend does not tell")
    assert sum(execution.shares.values()) == pytest.approx(1.0)
    assert (execution.left_out, execution.building) == ({}, "")


def test_the_same_input_gives_the_same_output(made):
    backend = made[1]()
    name = backend.outputs[0].name
    first = backend.run(zeros(backend))[name].copy()
    np.testing.assert_array_equal(backend.run(zeros(backend))[name], first)


def test_a_tensor_that_does_not_fit_is_named(made):
    backend = made[1]()
    given = zeros(backend)
    name = backend.inputs[0].name
    with pytest.raises(InferenceError, match=name):
        backend.run({})
    with pytest.raises(InferenceError, match="float16"):
        backend.run({**given, name: given[name].astype(np.float16)})
    with pytest.raises(InferenceError, match="the model wants"):
        backend.run({**given, name: given[name][:, 1:]})
    assert backend.run(given)


def test_close_twice_then_run_is_an_error(made):
    backend = made[1]()
    given = zeros(backend)
    backend.close()
    backend.close()
    with pytest.raises(InferenceError, match="is closed"):
        backend.run(given)


def test_bytes_that_are_no_model_are_a_model_error(made, tmp_path):
    name, _ = made
    options = {}
    if name == "replay":
        options["path"] = tmp_path / "bad.npz"
        options["path"].write_bytes(b"no model")
    with pytest.raises(ModelError) as caught:
        create(name, b"no model, whatever the runtime", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PLUGINS)
def test_it_imports_without_its_runtime(name):
    code = (
        f"import sys, edgevision.inference.{name}; "
        "sys.exit(bool({'onnxruntime', 'ai_edge_litert', 'tflite_runtime', 'openvino', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_missing_runtime_is_one_line_with_the_package(name):
    code = (
        "import sys; "
        "gone = ['onnxruntime', 'ai_edge_litert', 'ai_edge_litert.interpreter', 'openvino']; "
        "sys.modules.update(dict.fromkeys(gone, None)); "
        "import importlib.util; importlib.util.find_spec = lambda name: None; "
        f"from edgevision.inference import {name} as p, base; "
        "from edgevision.errors import PluginError\n"
        "try:\n"
        "    p.create(p.Options(), base.ModelFile(name='m', content=b'....TFL3', sha256=''), base.BackendContext())\n"
        "except PluginError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"backend {name} needs ")
    assert f"pip install 'edgevision[{name}]'" in done.stdout
    assert done.stdout.count("\n") == 1
