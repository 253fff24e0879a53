"""OpenVINO: what is refused, that nothing is copied or changed on the way, and which files the backend reads."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from inference_support import add_model, load, load_shared, zeros_for
from pydantic import ValidationError

from edgevision import assembly, config, model_store
from edgevision.errors import ConfigError, InferenceError, ModelError, PluginError, StateError, UsageError
from edgevision.inference.openvino import Options
from edgevision.pipeline import execution_of
from edgevision.proposals import Told
from edgevision.types import Detections

openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgevision[openvino]'")


def onnx_model(nodes, inputs, outputs, *constants):
    onnx = pytest.importorskip("onnx", reason="needs onnx to make small models: pip install onnx")
    values = [[onnx.helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    made = [
        onnx.helper.make_node(kind, [given] if isinstance(given, str) else given, [found])
        for kind, given, found in nodes
    ]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants]
    graph = onnx.helper.make_graph(made, "g", *values, weights)
    opset = [onnx.helper.make_opsetid("", 14)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def test_a_real_model_gives_what_openvino_gives_in_the_file_s_precision(shared):
    backend = load_shared("openvino", shared, "yolox_nano.onnx")
    (given,), (output,) = backend.inputs, backend.outputs
    assert (given.name, given.shape, given.dtype, given.layout) == ("images", (1, 3, 416, 416), np.float32, "NCHW")
    assert (output.name, output.shape, output.dtype, output.quantization) == ("output", (1, 3549, 85), np.float32, None)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 416, 416)).astype(np.float32)
    core = openvino.Core()
    network = core.read_model(shared / "models" / "yolox_nano.onnx")
    bare = core.compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    result = backend.run({"images": pixels})["output"]
    np.testing.assert_array_equal(result, bare(pixels)[0])
    # Where the CPU has bfloat16, OpenVINO left alone is a hundred times as far off as this.
    other = load_shared("onnxrt", shared, "yolox_nano.onnx").run({"images": pixels})["output"]
    assert np.abs(result - other).max() < 1e-3


def test_an_open_batch_is_one_frame_and_an_open_size_stays_open():
    backend = load("openvino", add_model())
    assert backend.inputs[0].shape == backend.outputs[0].shape == (1, 3, 4, 4)
    assert backend.run({"x": np.ones((1, 3, 4, 4), np.float32)})["y"].ravel().tolist() == list(range(1, 49))
    backend = load("openvino", onnx_model([("Relu", "x", "y")], *[[(n, 1, ["N", 3, "H", "W"])] for n in "xy"]))
    assert backend.inputs[0].shape == (1, 3, -1, -1)
    assert backend.inputs[0].layout == "NCHW"
    for side in (4, 6, 2):
        assert backend.run({"x": np.zeros((1, 3, side, 4), np.float32)})["y"].shape == (1, 3, side, 4)


@pytest.mark.parametrize("layout", ["plain", "read-only", "strided", "unaligned"])
def test_any_array_is_read_and_none_is_written_to(layout):
    backend = load("openvino", onnx_model([("Relu", "x", "y")], *[[(n, 1, [1, 3, 4, 4])] for n in "xy"]))
    values = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    given = values.copy()
    if layout == "read-only":
        given.setflags(write=False)
    elif layout == "strided":
        given = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "unaligned":
        given = np.zeros(values.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(values.shape)
        given[:] = values
    np.testing.assert_array_equal(backend.run({"x": given})["y"], np.maximum(values, 0))
    np.testing.assert_array_equal(given, values)


def test_nothing_is_copied_out_and_another_array_each_time_is_well():
    backend = load("openvino", add_model())
    first = backend.run({"x": np.full((1, 3, 4, 4), 1, np.float32)})["y"]
    assert first[0, 0, 0, 0] == 1
    second = backend.run({"x": np.full((1, 3, 4, 4), 5, np.float32)})["y"]
    assert second[0, 0, 0, 0] == 5
    assert np.shares_memory(first, second)
    backend.close()
    assert second[0, 0, 0, 0] == 5  # a view outlives what it was a view of


def test_tensors_keep_the_names_and_the_order_of_the_file():
    kinds = [(name, 1, [1, 3]) for name in ("b", "a", "x2")]
    backend = load("openvino", onnx_model([("Relu", "x", "b"), ("Identity", "b", "a"), ("Identity", "x", "x2")],
                                          [("x", 1, [1, 3])], kinds))  # fmt: skip
    assert [spec.name for spec in backend.inputs] == ["x"]
    assert [spec.name for spec in backend.outputs] == ["b", "a", "x2"]
    result = backend.run({"x": np.array([[-1, 2, -3]], np.float32)})
    assert {name: array.tolist() for name, array in result.items()} == {
        "b": [[0, 2, 0]], "a": [[0, 2, 0]], "x2": [[-1, 2, -3]],
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.float16, np.float64])
def test_dtypes_are_the_file_s_own(dtype):
    backend = load("openvino", add_model(("N", 3, 4, 4), dtype=dtype))
    assert backend.inputs[0].dtype == backend.outputs[0].dtype == dtype
    result = backend.run({"x": np.ones((1, 3, 4, 4), dtype)})["y"]
    assert result.dtype == dtype
    assert result.ravel().tolist() == list(range(1, 49))


def test_weights_in_a_second_file_are_never_read(tmp_path, monkeypatch):
    np.arange(48, dtype=np.float32).tofile(tmp_path / "w.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="model 'm': its weights lie in a second file, which is not checked"):
        load("openvino", add_model(external=True))


def test_ir_without_its_weights_is_refused_with_the_way_out():
    with pytest.raises(
        ModelError,
        match=r"model 'm\.xml': it is OpenVINO IR without its weights; edgevision models add takes the \.xml",
    ):
        load("openvino", b'<?xml version="1.0"?>\n<net name="m" version="11"></net>', "m.xml")


@pytest.mark.parametrize("content", [b"", b"hello world" * 20, b"\x1c\0\0\0TFL3" + bytes(100)])
def test_what_is_no_model_is_refused_in_one_line(content, capfd):
    with pytest.raises(ModelError, match=r"^model 'line3.onnx': OpenVINO says: Unable to read the model$") as caught:
        load("openvino", content, "line3.onnx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_model_is_refused(shared, share):
    content = (shared / "models" / "yolox_nano.onnx").read_bytes()
    with pytest.raises(ModelError, match="OpenVINO says: Error during import of ONNX model"):
        load("openvino", content[: int(len(content) * share)])


def test_an_operator_that_openvino_lacks_is_named():
    content = onnx_model([("NoSuchOp", "x", "y")], *[[(n, 1, [1, 3])] for n in "xy"])
    with pytest.raises(ModelError, match=r"OpenVINO says: No conversion rule found for operations: NoSuchOp"):
        load("openvino", content)


def test_tensors_of_text_are_refused():
    with pytest.raises(ModelError, match=r"'x' is string; only tensors of numbers can be used"):
        load("openvino", onnx_model([("Identity", "x", "y")], *[[(n, 8, [1, 3])] for n in "xy"]))


@pytest.mark.parametrize("device", ["GPU.7", "NPU", "AUTO:GPU.7,CPU"])
def test_a_device_that_is_not_here_is_an_error(device):
    name = device.removeprefix("AUTO:").partition(",")[0]
    there = openvino.Core().available_devices
    if name in there:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(
        PluginError, match=rf"finds no {name} on this machine; it has .*{there[0]}.*name another `device`"
    ):
        load("openvino", add_model(), device=device)


def test_auto_is_openvino_s_own_choice(caplog):
    with caplog.at_level("INFO"):
        backend = load("openvino", add_model(), device="AUTO:CPU")
    assert "OpenVINO chose" in caplog.text
    assert backend.run(zeros_for(backend))["y"].shape == (1, 3, 4, 4)


def test_options_are_checked_before_any_model():
    assert Options(device="GPU.1").device == "GPU.1"
    for device in ("cuda", "cpu", "AUTO:", "AUTO:CPU,TPU", "CPU,GPU"):
        with pytest.raises(ValidationError, match="device"):
            Options(device=device)
    with pytest.raises(ValidationError):
        Options(performance_hint="fast")


def test_options_reach_openvino(monkeypatch):
    asked = []
    real = openvino.Core.compile_model

    def compile_model(core, network, device, properties):
        asked.append((device, properties))
        return real(core, network, device, properties)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    load("openvino", add_model(), threads=2)
    load("openvino", add_model(), performance_hint="throughput", execution_mode="performance", pinning=True)
    plain, other = (properties for _, properties in asked)
    assert plain == {
        "PERFORMANCE_HINT": "LATENCY", "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_NUM_THREADS": 2, "ENABLE_CPU_PINNING": False,
    }  # fmt: skip
    assert other == {
        "PERFORMANCE_HINT": "THROUGHPUT", "EXECUTION_MODE_HINT": "PERFORMANCE",
        "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": True,
    }  # fmt: skip


def test_compiled_models_are_kept_only_where_they_may(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load("openvino", add_model())
    assert not [*tmp_path.iterdir()]
    load("openvino", add_model(), cache_dir=tmp_path / "cache")
    assert [*(tmp_path / "cache").iterdir()]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="file: cache_dir cannot be written to"):
        load("openvino", add_model(), cache_dir=tmp_path / "file")


def test_sizes_that_cannot_be_computed_are_an_inference_error():
    backend = load("openvino", add_model(("N", 3, "H", "W")))
    for _ in range(2):
        with pytest.raises(InferenceError, match=r"^model 'm': OpenVINO says: Argument shapes are inconsistent$"):
            backend.run({"x": np.zeros((1, 3, 5, 7), np.float32)})  # cannot be added to (3, 4, 4)
    result = backend.run({"x": np.ones((1, 3, 4, 4), np.float32)})["y"]
    assert result.ravel().tolist() == list(range(1, 49))


def test_close_gives_the_memory_back(shared):
    pytest.importorskip("psutil")
    code = (
        "import sys, psutil; sys.path.insert(0, sys.argv[2]); from inference_support import load\n"
        "content = open(sys.argv[1], 'rb').read()\n"
        "used = []\n"
        "for _ in range(12):\n"
        "    load('openvino', content).close()\n"
        "    used.append(psutil.Process().memory_info().rss >> 20)\n"
        "print(used[-1] - used[3])"
    )
    model, support = shared / "models" / "yolox_nano.onnx", __file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", code, model, support], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 40  # eight models that stayed would be some 20 MB each


@pytest.fixture(scope="module")
def models_dir(shared, tmp_path_factory):
    """A folder with yolox-nano as a user adds it: one file, for onnxrt."""
    root = tmp_path_factory.mktemp("models")
    described = assembly.describe(shared / "models" / "yolox_nano.onnx", model_store.find("yolox-nano"), name="nano")
    described.model.close()
    model_store.add(described.manifest, described.content, labels_from=described.labels_from, models_dir=root)
    return root


def test_the_onnx_file_of_another_backend_is_read(models_dir, shared):
    found = {}
    for backend in ("onnxrt", "openvino"):
        model = assembly.load_model("nano", backend=backend, models_dir=models_dir)
        assert model.backend_name == backend
        assert model.sha256 == model_store.digest(shared / "models" / "yolox_nano.onnx")
        found[backend] = model.predict(shared / "images" / "cats_and_dogs.jpg")
        model.close()
    first, second = found.values()
    assert isinstance(first, Detections)
    assert isinstance(second, Detections)
    assert len(first.class_id)
    np.testing.assert_array_equal(first.class_id, second.class_id)
    np.testing.assert_allclose(first.xyxy, second.xyxy, atol=0.1)


def manifest_of(models_dir, files):
    """The user's model with other files, by backend and name."""
    manifest = model_store.find("nano", models_dir).manifest
    section = manifest.files["onnxrt"]
    made = {backend: section.model_copy(update={"path": name}) for backend, name in files.items()}
    return manifest.model_copy(update={"files": made})


@pytest.mark.parametrize(
    ("files", "backend", "file"),
    [
        ({"onnxrt": "a.onnx"}, "openvino", "a.onnx"),
        ({"onnxrt": "a.onnx", "openvino": "b.onnx"}, "openvino", "b.onnx"),
        ({"onnxrt": "a.onnx", "openvino": "b.onnx"}, "onnxrt", "a.onnx"),
        ({"litert": "a.tflite", "onnxrt": "B.ONNX"}, "openvino", "B.ONNX"),
        ({"litert": "a.tflite"}, "openvino", None),
        ({"onnxrt": "a.onnx"}, "litert", None),
        ({"onnxrt": "a.onnx"}, "replay", None),
        ({"onnxrt": "a.onnx"}, "nobody", None),
    ],
)
def test_which_file_a_backend_reads(models_dir, files, backend, file):
    found = manifest_of(models_dir, files).find_file(backend)
    assert (found and found.file_name) == file


def test_a_model_without_a_file_in_its_format_is_an_error(models_dir):
    folder = replace(model_store.find("nano", models_dir), manifest=manifest_of(models_dir, {"litert": "a.tflite"}))
    with pytest.raises(ModelError, match="nano has no file for openvino; it has litert"):
        assembly.choose_backend(folder, "openvino")


def test_openvino_is_chosen_where_it_is_the_only_runtime(models_dir, monkeypatch):
    folder = model_store.find("nano", models_dir)
    assert assembly.choose_backend(folder, None) == "onnxrt"
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    assert assembly.choose_backend(folder, None) == "openvino"


def test_a_bare_file_can_be_read_by_either(shared):
    file, like = shared / "models" / "yolox_nano.onnx", model_store.find("yolox-nano")
    described = assembly.describe(file, like, settings=assembly.ModelSettings(backend="openvino"))
    assert [*described.manifest.files] == ["openvino"]
    assert described.model.backend_name == "openvino"
    described.model.close()
    with pytest.raises(UsageError, match="is a file for onnxrt, not for litert"):
        assembly.describe(file, like, settings=assembly.ModelSettings(backend="litert"))
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        assembly.load_model(file, like="yolox-nano", backend="openvine")


def test_a_config_may_ask_for_it(tmp_path):
    def checked(backend, options):
        path = tmp_path / "edgevision.yaml"
        data = {
            "device": "box",
            "sinks": [{"type": "memory"}],
            "models": {"m": {"model": "efficientnet-lite0", "backend": backend, "options": options}},
            "cameras": [{"name": "c", "model": "m", "source": {"type": "synthetic"}}],
        }
        path.write_text(yaml.safe_dump(data))
        return config.load(path)

    assert checked("openvino", {"device": "GPU", "pinning": True}).models["m"].backend == "openvino"
    with pytest.raises(ConfigError, match=r"models\.m\.options\.device"):
        checked("openvino", {"device": "TPU"})


def test_the_command_line_knows_it(command_line, shared):
    done = command_line(
        "predict", "efficientnet-lite0", shared / "images" / "cat.bmp", "--backend", "openvino", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cat" in json.loads(done.stdout)["predictions"][0]["label"]


@pytest.fixture(scope="module")
def ir_files(shared, tmp_path_factory):
    """YOLOX-nano as OpenVINO writes it: an .xml file and its .bin."""
    folder = tmp_path_factory.mktemp("ir")
    network = openvino.Core().read_model(shared / "models" / "yolox_nano.onnx")
    openvino.save_model(network, folder / "y.xml", compress_to_fp16=False)
    return folder / "y.xml"


def test_ir_becomes_one_file_and_gives_what_the_onnx_file_gives(ir_files, shared, tmp_path):
    described = assembly.describe(ir_files, model_store.find("yolox-nano"), name="mine")
    assert described.manifest.files["openvino"].file_name == "y.ir"
    added = model_store.add(
        described.manifest, described.content, labels_from=described.labels_from, models_dir=tmp_path
    )
    assert model_store.verify(added) == {"openvino": "ok"}
    model = assembly.load_model(str(added.path))
    assert model.backend_name == "openvino"
    given = zeros_for(model.backend)
    onnx = load_shared("openvino", shared, "yolox_nano.onnx")
    np.testing.assert_allclose(model.backend.run(given)["output"], onnx.run(given)["output"], atol=1e-4)
    told = execution_of(model)
    assert told is not None
    assert told.shares == {"cpu": 1.0}


def test_ir_that_was_proposed_is_stored_as_one_file_too(ir_files, tmp_path):
    suggested = assembly.suggest(ir_files, told=Told(family="yolox", raw=True, labels=tuple(map(str, range(80)))))
    described = suggested.described(accept=True)
    described.model.close()
    added = model_store.add(
        described.manifest,
        described.content,
        labels_from=described.labels_from,
        labels=described.labels,
        models_dir=tmp_path,
    )
    assert added.manifest.files["openvino"].file_name == "y.ir"
    assert model_store.verify(added) == {"openvino": "ok"}


def test_ir_that_is_not_whole_is_refused(ir_files, tmp_path):
    content = model_store.read_file(ir_files)
    for cut in (content[:-1000], content[:5000], content[: content.index(b"\0")]):
        with pytest.raises(ModelError):
            load("openvino", cut)
    alone = tmp_path / "alone.xml"
    alone.write_bytes(ir_files.read_bytes())
    with pytest.raises(
        ModelError, match=r"alone\.bin: cannot be read: .*the weights of alone\.xml, which must lie beside it"
    ):
        model_store.read_file(alone)
    (tmp_path / "alone.bin").write_bytes(b"")
    alone.write_bytes(b"hello")
    with pytest.raises(ModelError, match="it is no XML; give OpenVINO's"):
        model_store.read_file(alone)
    with pytest.raises(UsageError, match="is a file for openvino, not for onnxrt"):
        model_store.backend_for(ir_files, "onnxrt")
