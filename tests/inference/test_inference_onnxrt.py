"""ONNX Runtime: what is refused, how it waits, and that it is the runtime's own result that comes out."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_support import add_model, load, load_shared, zeros_for
from pydantic import ValidationError

from edgevision.errors import InferenceError, ModelError, PluginError
from edgevision.inference import _onnx_file
from edgevision.inference._onnx_file import has_external_data
from edgevision.inference.onnxrt import Options


def test_a_real_model_tells_its_tensors_and_gives_the_runtime_s_own_result(shared):
    onnxruntime = pytest.importorskip("onnxruntime")
    backend = load_shared("onnxrt", shared, "yolox_nano.onnx")
    (given,), (output,) = backend.inputs, backend.outputs
    assert (given.name, given.shape, given.dtype, given.layout) == ("images", (1, 3, 416, 416), np.float32, "NCHW")
    assert (output.name, output.shape, output.dtype, output.quantization) == ("output", (1, 3549, 85), np.float32, None)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 416, 416)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(
        str(shared / "models" / "yolox_nano.onnx"), options, providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(backend.run({"images": pixels})["output"], bare.run(None, {"images": pixels})[0])


def test_an_open_batch_is_one_frame():
    backend = load("onnxrt", add_model())
    assert backend.inputs[0].shape == backend.outputs[0].shape == (1, 3, 4, 4)
    result = backend.run({"x": np.ones((1, 3, 4, 4), np.float32)})["y"]
    assert result.ravel().tolist() == list(range(1, 49))


def test_an_open_size_stays_open():
    backend = load("onnxrt", add_model(("N", 3, "H", "W")), threads=2, expected_fps=5)
    assert backend.inputs[0].shape == (1, 3, -1, -1)
    assert backend.inputs[0].layout == "NCHW"
    assert backend.run({"x": np.zeros((1, 3, 4, 4), np.float32)})["y"].shape == (1, 3, 4, 4)


def test_weights_in_a_second_file_are_never_read(tmp_path, monkeypatch):
    content = add_model(external=True)
    # ONNX Runtime looks for the weights of a model that comes as bytes in the working directory.
    np.arange(48, dtype=np.float32).tofile(tmp_path / "w.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match="model 'm': its weights lie in a second file, which is not checked and not read"
    ):
        load("onnxrt", content)


def test_weights_in_a_second_file_are_seen_wherever_they_are(shared):
    onnx = pytest.importorskip("onnx", reason="needs onnx to make small models: pip install onnx")
    inner = onnx.load_from_string(add_model(external=True)).graph
    branch = onnx.helper.make_node("If", ["condition"], ["z"], then_branch=inner, else_branch=inner)
    outer = onnx.helper.make_model(onnx.helper.make_graph([branch], "outer", [], []))
    assert has_external_data(outer.SerializeToString(), "m")
    assert has_external_data(add_model(external=True), "m")
    assert not has_external_data(add_model(), "m")
    for path in (shared / "models").glob("*.onnx"):
        assert not has_external_data(path.read_bytes(), "m")


@given(st.binary(max_size=200))
def test_any_bytes_can_be_searched_for_a_second_file(content):
    assert has_external_data(content, "m") in (True, False)


def test_more_parts_than_any_model_has_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(_onnx_file, "MAX_FIELDS", 1000)
    nodes = b"\x0a\x00" * 999
    graph = bytes((0x3A, 0xCE, 0x0F)) + nodes  # the model's field 7 with 1998 bytes
    assert not has_external_data(graph, "m")
    with pytest.raises(ModelError, match="model 'm': holds more than 1000 parts"):
        has_external_data(graph + graph, "m")


@pytest.mark.parametrize("content", [b"", b"hello world" * 20, b"\x1c\0\0\0TFL3" + bytes(100)])
def test_what_is_no_model_is_refused_in_one_line(content, capfd):
    with pytest.raises(ModelError, match=r"model 'line3.onnx': ONNX Runtime says: ") as caught:
        load("onnxrt", content, "line3.onnx")
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_model_is_refused(shared, share):
    content = (shared / "models" / "yolox_nano.onnx").read_bytes()
    with pytest.raises(ModelError, match="ONNX Runtime says"):
        load("onnxrt", content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("provider", "full", "fix"),
    [
        ("cuda", "CUDAExecutionProvider", "pip install onnxruntime-gpu in place of onnxruntime"),
        ("TensorrtExecutionProvider", "TensorrtExecutionProvider", "pip install onnxruntime-gpu"),
        ({"migraphx": {"device_id": 0}}, "MIGraphXExecutionProvider", "pip install onnxruntime-migraphx"),
        ("xnnpack", "XnnpackExecutionProvider", "build ONNX Runtime with --use_xnnpack"),
    ],
)
def test_a_provider_that_this_build_lacks_is_an_error(provider, full, fix):
    onnxruntime = pytest.importorskip("onnxruntime")
    if full in onnxruntime.get_available_providers():
        pytest.skip(f"this build of ONNX Runtime has {full}")
    with pytest.raises(PluginError) as caught:
        load("onnxrt", add_model(), providers=[provider, "cpu"])
    assert f"has no {full}; it has " in str(caught.value)
    assert "CPUExecutionProvider" in str(caught.value)
    assert fix in str(caught.value)


def test_options_know_providers():
    assert Options(providers=["cpu"]).provider_options() == {"CPUExecutionProvider": {}}
    assert Options(providers=[{"cuda": {"device_id": 1}}, "cpu"]).provider_options() == {
        "CUDAExecutionProvider": {"device_id": 1},
        "CPUExecutionProvider": {},
    }
    with pytest.raises(ValidationError, match="did you mean 'cuda'"):
        Options(providers=["cuda12"])
    with pytest.raises(ValidationError, match="must be one provider's name and its options"):
        Options(providers=[{"cuda": {}, "cpu": {}}])
    with pytest.raises(ValidationError):
        Options(providers=[])


@pytest.mark.parametrize(
    ("settings", "spins"),
    [
        ({"threads": 2}, True),  # as many frames as can be had
        ({"threads": 2, "expected_fps": 0.01}, False),  # paced
        ({"threads": 2, "expected_fps": 1e6}, True),  # more than it can do
        ({"threads": 1}, False),  # nobody to wait for
        ({"threads": 2, "expected_fps": 0.01, "spinning": "on"}, True),
        ({"threads": 2, "spinning": "off"}, False),
    ],
)
def test_threads_spin_only_under_full_load(settings, spins, caplog):
    with caplog.at_level(logging.INFO):
        backend = load("onnxrt", add_model(), **settings)
    assert backend.spinning is spins
    decided_by_load = settings.get("expected_fps") is not None and "spinning" not in settings
    assert ("is a load of" in caplog.text) is decided_by_load
    assert backend.run(zeros_for(backend))["y"].shape == (1, 3, 4, 4)


def test_tensors_that_do_not_fit_are_refused_by_name():
    backend = load("onnxrt", add_model())
    good = np.zeros((1, 3, 4, 4), np.float32)
    with pytest.raises(InferenceError, match=r"model 'm': input 'x' is missing; given: 'z'"):
        backend.run({"z": good})
    with pytest.raises(InferenceError, match=r"input 'x' is float64; the model wants float32"):
        backend.run({"x": good.astype(np.float64)})
    with pytest.raises(InferenceError, match=r"input 'x' is \[1, 3, 4, 5\]; the model wants \[1, 3, 4, 4\]"):
        backend.run({"x": np.zeros((1, 3, 4, 5), np.float32)})
    with pytest.raises(InferenceError, match=r"has no input 'z'; it has 'x'"):
        backend.run({"x": good, "z": good})


def test_a_failure_of_the_runtime_is_an_inference_error():
    backend = load("onnxrt", add_model(("N", 3, "H", "W")))
    with pytest.raises(InferenceError, match=r"model 'm': ONNX Runtime says: ") as caught:
        backend.run({"x": np.zeros((1, 3, 5, 7), np.float32)})  # cannot be added to (3, 4, 4)
    assert "\n" not in str(caught.value)
