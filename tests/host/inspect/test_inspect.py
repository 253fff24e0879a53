"""What a file is and what runtimes make of it, on real models; a file that crashes or hangs its runtime is told as such."""

import json
from pathlib import Path

import numpy as np
import pytest
from support_daemon import install_fragile_backend

from edgevision import registry
from edgevision.errors import ModelError, UsageError
from edgevision.graphs import read
from edgevision.host.inspect.advice import advice
from edgevision.host.inspect.facts import facts, multiply_adds, multiply_adds_of, quantisation
from edgevision.host.inspect.report import inspect, weights_files

KINDS = {
    "yolox_nano.onnx": "float",
    "yolox_nano_float16.tflite": "float16 weights",
    "yolov8n_int8_416_AGPL_test_only.tflite": "integer",
    "mobilenet_v2_1.0_224_quant.tflite": "integer",
}


def graph_of(shared, file):
    return read((shared / "models" / file).read_bytes(), file)


@pytest.mark.parametrize(("file", "kind"), KINDS.items())
def test_the_kind_of_quantisation_is_seen(shared, file, kind):
    assert quantisation(graph_of(shared, file)) == kind


def test_the_shipped_model_is_quantised_in_both_its_files():
    files = weights_files("efficientnet-lite0")
    found = {name: facts(read(file.read_bytes(), name)) for name, file in files.items()}
    assert {name: one["quantisation"] for name, one in found.items()} == {"onnxrt": "QDQ", "litert": "integer"}
    # Lite0: 4.65 million parameters; zero points and scales come on top.
    assert all(4.6e6 < one["parameters"] < 4.9e6 for one in found.values())


def test_multiply_adds_of_single_operators():
    assert multiply_adds_of("Conv", (1, 3, 8, 8), (16, 3, 3, 3), (1, 16, 6, 6)) == 16 * 6 * 6 * 3 * 9
    assert multiply_adds_of("CONV_2D", (1, 8, 8, 3), (16, 3, 3, 3), (1, 6, 6, 16)) == 16 * 6 * 6 * 3 * 9
    assert multiply_adds_of("Conv", (1, 4, 8, 8), (4, 1, 3, 3), (1, 4, 6, 6)) == 4 * 6 * 6 * 9  # depthwise
    assert multiply_adds_of("DEPTHWISE_CONV_2D", (1, 8, 8, 4), (1, 3, 3, 4), (1, 6, 6, 4)) == 4 * 6 * 6 * 9
    assert multiply_adds_of("ConvTranspose", (1, 4, 8, 8), (4, 2, 2, 2), (1, 2, 16, 16)) == 4 * 8 * 8 * 2 * 4
    assert multiply_adds_of("TRANSPOSE_CONV", (1, 8, 8, 4), (2, 2, 2, 4), (1, 16, 16, 2)) == 4 * 8 * 8 * 2 * 4
    assert (
        multiply_adds_of("Gemm", (1, 10), (10, 5), (1, 5))
        == multiply_adds_of("FULLY_CONNECTED", (1, 10), (5, 10), (1, 5))
        == 50
    )


def test_one_network_has_the_same_multiply_adds_whoever_tells_its_shapes(shared, tmp_path):
    onnx = pytest.importorskip("onnx")
    told = multiply_adds(graph_of(shared, "yolox_nano.onnx"))
    assert told == multiply_adds(graph_of(shared, "yolox_nano_float16.tflite")) == 522_553_408
    model = onnx.load(shared / "models" / "yolox_nano.onnx")
    del model.graph.value_info[:]
    file = tmp_path / "yolox_nano.onnx"
    file.write_bytes(model.SerializeToString())
    assert multiply_adds(read(file.read_bytes(), "m")) is None
    document = inspect(file, backends=["onnxrt"])
    assert document["multiply_adds"] == told
    run = document["here"]["onnxrt"]
    assert run["shares"] == {"cpu": 1.0}
    assert (run["integer_kernels"], run["weighted_kernels"]) == (0, 113)
    assert run["median_ms"] > 0
    words = "\n".join(document["advice"])
    assert "it computes in float: edgevision quantize" in words
    assert "opset 11 cannot say `quantised per channel`" in words


def test_the_shipped_model_runs_as_integers_here():
    document = inspect(weights_files("efficientnet-lite0")["onnxrt"], backends=["onnxrt"])
    run = document["here"]["onnxrt"]
    if not run["integer_kernels"]:
        pytest.skip("this processor's kernels take no unsigned integers")
    assert run["integer_kernels"] == run["weighted_kernels"] == 50
    assert document["multiply_adds"] == pytest.approx(385e6, rel=0.01)
    assert not any("quantize" in line for line in document["advice"])


def test_nms_and_custom_operators_are_named(shared):
    document = inspect(shared / "models" / "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite", backends=[])
    assert document["nms"] == ["TFLite_Detection_PostProcess"]
    assert any("stands inside the graph" in line for line in document["advice"])


FLOAT = {"format": "onnx", "quantisation": "float", "operators": {"Conv": 1}, "open_sizes": False, "inputs": [], "nms": [],
         "opsets": {"ai.onnx": 17}, "weight_types": {}}  # fmt: skip
INTEGER = {**FLOAT, "quantisation": "QDQ"}


def run_of(ms, integer=10, weighted=10, **more):
    return {
        "median_ms": ms,
        "integer_kernels": integer,
        "weighted_kernels": weighted,
        "notes": [],
        "shares": {},
        **more,
    }


@pytest.mark.parametrize(
    ("seen", "runs", "words"),
    [
        (FLOAT, {}, ["it computes in float: edgevision quantize m.onnx --target x86"]),
        ({**FLOAT, "quantisation": "float16 weights"}, {}, ["a CPU widens them"]),
        ({**FLOAT, "quantisation": "integer weights"}, {}, ["only its weights are integers"]),
        (INTEGER, {"onnxrt": run_of(9)}, []),
        (INTEGER, {"onnxrt": run_of(9, 0)}, ["onnxrt runs only 0 of 10", "edgevision quantize FLOAT_MODEL --target x86"]),
        (INTEGER, {"onnxrt": run_of(9, 0), "openvino": run_of(9)}, ["run it with openvino, where they do"]),
        (INTEGER, {"onnxrt": run_of(9), "openvino": run_of(5)}, ["openvino takes 5.0 ms here and onnxrt 9.0"]),
        (INTEGER, {"onnxrt": {"error": "crashed"}, "openvino": run_of(5)}, []),
        (INTEGER, {"onnxrt": run_of(9, notes=["x took none"], shares={"cuda": 0.6, "cpu": 0.4})},
         ["onnxrt: x took none", "40% of the nodes stay on the CPU"]),
        ({**INTEGER, "open_sizes": True}, {}, ["export it with a fixed size"]),
        ({**INTEGER, "inputs": [{"shape": [8, 3, 4, 4]}]}, {}, ["batch is fixed at 8"]),
        ({**INTEGER, "weight_types": {"float64": 2000}}, {}, ["export it in float32"]),
    ],
)  # fmt: skip
def test_advice_is_given_where_it_holds_and_only_there(seen, runs, words):
    given = "\n".join(advice(seen, runs, "x86", "m.onnx"))
    assert bool(given) is bool(words)
    for one in words:
        assert one in given


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """A backend from an outside package that aborts or hangs when a file says so."""
    environ = install_fragile_backend(tmp_path)
    monkeypatch.syspath_prepend(environ["PYTHONPATH"])
    monkeypatch.setenv("FRAGILE", environ["FRAGILE"])
    registry._outside.cache_clear()
    yield tmp_path
    registry._outside.cache_clear()


def test_a_file_that_crashes_its_runtime_is_told_and_the_rest_goes_on(fragile, shared):
    (fragile / "abort").touch()
    document = inspect(shared / "models" / "nanodet_m_320.onnx", backends=["fragile", "onnxrt"])
    assert "fragile crashed with SIGABRT" in document["here"]["fragile"]["error"]
    assert "do not run this file in the daemon" in document["here"]["fragile"]["error"]
    assert document["here"]["onnxrt"]["median_ms"] > 0


def test_a_file_that_hangs_its_runtime_is_told(fragile, shared):
    (fragile / "hang").touch()
    document = inspect(shared / "models" / "nanodet_m_320.onnx", backends=["fragile"], deadline_s=4)
    assert "fragile gave no answer within 4 s and was killed" in document["here"]["fragile"]["error"]


def test_what_a_runtime_refuses_is_told(shared):
    document = inspect(shared / "models" / "person_detect_REFUSED.tflite")
    assert "LiteRT refuses it" in document["here"]["litert"]["error"]


def test_hostile_and_absent_files(tmp_path):
    for name, content in (("m.onnx", b""), ("n.onnx", b"hello" * 99), ("o.tflite", b"\x1c\0\0\0TFL3" + bytes(60))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            inspect(tmp_path / name)
    with pytest.raises(UsageError, match="no such file"):
        weights_files(str(tmp_path / "none.onnx"))
    with pytest.raises(UsageError, match="unknown model"):
        weights_files("none")
    with pytest.raises(ModelError, match="none of its files is here"):
        weights_files("yolox-nano")


def test_the_command(command_line, shared):
    file = shared / "models" / "nanodet_m_320.onnx"
    done = command_line("inspect", file, "--no-run")
    assert done.returncode == 0, done.stderr
    assert "float32 1x3x320x320" in done.stdout
    assert "73 Conv" in done.stdout
    (document,) = json.loads(command_line("inspect", file, "--backend", "onnxrt", "--json").stdout)
    assert document["here"]["onnxrt"]["shares"] == {"cpu": 1.0}
    assert document["here"]["onnxrt"]["weighted_kernels"] == 73  # whatever they are called in the optimised graph
    done = command_line("inspect", file, "--provider", "cudda")
    assert done.returncode == 2
    assert "did you mean 'cuda'" in done.stderr
    done = command_line("inspect", file, "--backend", "litert")
    assert (done.returncode, "is a file for onnxrt, not for litert" in done.stderr) == (2, True)


def test_a_provider_that_is_not_here_is_told_by_the_run(shared):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has CUDA")
    document = inspect(shared / "models" / "nanodet_m_320.onnx", backends=["onnxrt"], providers=["cuda", "cpu"])
    assert "pip install onnxruntime-gpu" in document["here"]["onnxrt"]["error"]


def test_open_sizes_are_run_with_a_size_of_ours(tmp_path):
    onnx = pytest.importorskip("onnx")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["N", 3, "H", "W"]) for name in "xy")
    weights = onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Conv", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    file = tmp_path / "open.onnx"
    file.write_bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
    )
    document = inspect(file, backends=["onnxrt"])
    assert document["multiply_adds"] == 320 * 320 * 9
    assert any("fixed size" in line for line in document["advice"])


def test_openvino_s_own_format_is_inspected_like_the_others(shared, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgevision[openvino]'")
    network = openvino.Core().read_model(shared / "models" / "yolox_nano.onnx")
    openvino.save_model(network, tmp_path / "y.xml", compress_to_fp16=False)
    document = inspect(tmp_path / "y.xml")
    assert (document["format"], document["quantisation"]) == ("openvino", "float")
    assert document["multiply_adds"] == 522_553_408
    run = document["here"]["openvino"]
    assert run["shares"] == {"cpu": 1.0}
    assert (run["integer_kernels"], run["weighted_kernels"]) == (0, 113)
    assert "edgevision quantize THE_ONNX_FILE_IT_WAS_MADE_OF --target openvino" in document["advice"][0]


@pytest.mark.parametrize(
    ("backends", "files"),
    [
        (["openvino"], [".onnx"]),
        (["litert"], [".tflite"]),
        (["onnxrt", "litert"], [".onnx", ".tflite"]),
    ],
)
def test_of_a_models_files_those_that_a_backend_reads(command_line, backends, files):
    """efficientnet-lite0 names an .onnx file for onnxrt, which OpenVINO reads as well, and a .tflite file."""
    asked = [word for name in backends for word in ("--backend", name)]
    done = command_line("inspect", "efficientnet-lite0", *asked, "--json", "--no-run")
    assert done.returncode == 0, done.stderr
    assert [Path(document["file"]).suffix for document in json.loads(done.stdout)] == files


def test_each_file_of_a_model_is_run_by_those_that_read_it(command_line):
    done = command_line("inspect", "efficientnet-lite0", "--backend", "onnxrt", "--backend", "litert", "--json")
    assert done.returncode == 0, done.stderr
    assert [list(document["here"]) for document in json.loads(done.stdout)] == [["onnxrt"], ["litert"]]


@pytest.mark.parametrize("backend", ["hailo", "replay"])
def test_a_backend_that_reads_no_file_of_a_model_is_refused(command_line, backend):
    done = command_line("inspect", "efficientnet-lite0", "--backend", "onnxrt", "--backend", backend)
    assert done.returncode == 2
    assert backend in done.stderr
