"""Real files: what their metadata says is read, what they are is recognised, and what is added works."""

import io
import json
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proposals_support import CERTAIN, LIKELY, MISSING, make, proposed

from edgevision import graphs, model_store
from edgevision.errors import ModelError
from edgevision.proposals import Told, metadata, propose
from edgevision.proposals.facts import Facts
from edgevision.types import TensorSpec

SSD = "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
YOLO = "yolov8n_int8_416_AGPL_test_only.tflite"


def notes_of(file):
    content = file.read_bytes()
    return metadata.read(graphs.read(content, file.name), content)


def test_tensorflow_lite_metadata(shared):
    notes = notes_of(shared / "models" / SSD)
    assert notes.name == "Coco SSD MobileNetV1"
    assert [note.name for note in notes.outputs] == ["locations", "classes", "scores", "number of detections"]
    (picture,) = notes.inputs
    assert (picture.image, picture.rgb, picture.mean, picture.std) == (True, True, (127.5,), (127.5,))
    assert notes.labels is not None
    assert notes.labels[0] == "labelmap.txt"
    assert (len(notes.labels[1]), notes.labels[1][0]) == (90, "person")


def test_ultralytics_metadata_in_a_tflite_file(shared):
    notes = notes_of(shared / "models" / YOLO).ultralytics
    assert notes is not None
    assert (notes.task, notes.size, notes.stride, len(notes.names)) == ("detect", (416, 416), 32, 80)
    assert notes.licence.startswith("AGPL-3.0")


@given(st.data())
@settings(max_examples=150)
def test_damaged_metadata_is_as_if_it_were_not_there(shared, data):
    content = bytearray((shared / "models" / SSD).read_bytes())
    graph = graphs.read(bytes(content), SSD)
    blob = bytearray(graph.blobs["TFLITE_METADATA"])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    damaged = graphs.Graph(**{**vars(graph), "blobs": {"TFLITE_METADATA": bytes(blob[:cut])}})
    assert metadata.read(damaged, bytes(content)).labels is not None  # of the archive, which is whole


@pytest.mark.parametrize(
    "names",
    ["__import__('os').getcwd()", "[" * 5000, "{0: " * 90, "{'a': 'b'}", "7", "[]", "", "{0: 1e999}", "nul\x00", '{"²": "x"}',
     '{"10000": "x"}', "{0x" + "f" * 5000 + ": 1}", '{"' + "9" * 5000 + '": "x"}'],
)  # fmt: skip
def test_names_that_are_none(tmp_path, names):
    pytest.importorskip("onnx")
    file = make(tmp_path / "m.onnx", [("output0", "f", (1, 7, 84))], metadata={"names": names, "task": "detect"})
    found = notes_of(file).ultralytics
    assert found is None or found.names == ("inf",)


def test_a_number_of_a_label_takes_no_memory(tmp_path):
    """A list of as many labels is not made before it is looked at."""
    pytest.importorskip("onnx")
    file = make(tmp_path / "m.onnx", [("output0", "f", (1, 7, 84))], metadata={"names": '{"99999": "x"}'})
    content = file.read_bytes()
    graph = graphs.read(content, file.name)
    tracemalloc.start()
    try:
        assert metadata.read(graph, content).ultralytics is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stride", ["²", "1" * 5000, "-1", ""])
def test_a_stride_that_is_none(tmp_path, stride):
    pytest.importorskip("onnx")
    given = {"names": "['a']", "stride": stride}
    found = notes_of(make(tmp_path / "m.onnx", [("output0", "f", (1, 7, 84))], metadata=given)).ultralytics
    assert found is not None
    assert found.stride is None


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_as_if_it_were_not_there(shared, method):
    """The stream in it, not its directory; what came before it is kept."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as written:
        written.writestr("a.txt", "whole")
        written.writestr("labels.txt", "".join(f"label {number}\n" for number in range(500)))
    behind = bytearray(archive.getvalue())
    at = behind.index(b"labels.txt") + len("labels.txt")
    at += 9 if method == zipfile.ZIP_LZMA else 0  # its own header
    behind[at : at + 40] = b"\xff" * 40
    content = (shared / "models" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    graph = graphs.read(content, "m.tflite")
    assert metadata.read(graph, content + bytes(behind)).files == {"a.txt": b"whole"}


FILES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "yolox_nano.onnx": ("yolox", LIKELY, {"outputs.predictions": ("output", CERTAIN), "input.color": ("BGR", LIKELY)}),
    "yolox_nano_float16.tflite": ("yolox", LIKELY, {"input.resize": ("letterbox", LIKELY)}),
    SSD: ("ssd", CERTAIN, {"input.color": ("RGB", CERTAIN), "input.mean": ([127.5] * 3, CERTAIN),
                           "outputs.scores": ("TFLite_Detection_PostProcess:2", CERTAIN)}),
    "deeplabv3_mnv2_dm05_pascal_quant.tflite": ("semantic", CERTAIN, {"input.mean": ([128.0] * 3, LIKELY)}),
    "mobilenet_v2_1.0_224_quant.tflite": ("classifier", LIKELY, {"activation": ("softmax", LIKELY)}),
    "nanodet_m_320.onnx": ("nanodet", LIKELY, {"outputs.boxes_8": ("bbox_pred1", CERTAIN),
                                               "outputs.scores_16": ("bbox_pred0", CERTAIN)}),
    "picodet_s_416_coco.onnx": ("picodet", LIKELY, {"outputs.scores_64": ("save_infer_model/scale_3.tmp_1", CERTAIN)}),
    YOLO: ("yolov8", CERTAIN, {"input.std": ([255.0] * 3, CERTAIN), "decoder.normalised": (True, CERTAIN)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_field(shared, name):
    family, sureness, more = FILES[name]
    _, lines = proposed(shared / "models" / name)
    assert lines["family"][0] == family
    assert lines["family"][1] in (sureness, MISSING)  # missing where this installation has no such decoder
    assert {key: lines[key] for key in more} == more


def test_a_constant_behind_other_operators(shared):
    """A float16 file's weights are made float32 first."""
    name = "yolox_nano_float16.tflite"
    graph = graphs.read((shared / "models" / name).read_bytes(), name)
    facts = Facts(graph=graph, notes=metadata.Notes(), inputs=(), outputs=())
    conv = next(node for node in graph.nodes if node.op == "CONV_2D")
    weights = facts.constant(conv.inputs[1])
    assert weights is not None
    assert (weights.dtype, weights.constant) == ("float16", True)
    assert facts.constant(conv.inputs[0]) is None
    assert facts.constant("nowhere") is None


def test_a_file_that_the_runtime_refuses(shared):
    with pytest.raises(ModelError, match="LiteRT refuses it"):
        proposed(shared / "models" / "person_detect_REFUSED.tflite")


def test_adding_needs_a_yes_where_something_is_not_certain(shared, command_line, tmp_path):
    file = shared / "models" / "yolox_nano_float16.tflite"
    done = command_line("models", "add", file)
    assert done.returncode == 2
    assert "family: yolox" in done.stdout
    assert "# likely: by the convention of YOLOX" in done.stdout
    assert "not all is certain; it was not added" in done.stderr
    assert "(say --color RGB|BGR)" in done.stderr
    assert not (tmp_path / "models").exists()
    assert command_line("models", "add", file, "--dry-run").returncode == 0
    assert not (tmp_path / "models").exists()
    labels = model_store.find("yolox-nano").path / "labels.txt"
    done = command_line("models", "add", file, "--accept", "--labels", labels, "--name", "found")
    assert done.returncode == 0, done.stderr
    picture = shared / "images" / "cats_and_dogs.jpg"
    done = command_line("predict", "found", picture, "--json")
    assert [item["label"] for item in json.loads(done.stdout)["predictions"]][:2] == ["cat", "cat"]
    shown = json.loads(command_line("models", "show", "found", "--json").stdout)
    assert shown["lineage"]["proposed"]["input.color"].startswith("likely: ")
    assert len(shown["labels"]) == 80


def test_saying_what_is_not_certain_is_enough(shared, command_line, tmp_path):
    content = (shared / "models" / SSD).read_bytes()
    file = tmp_path / "mine.tflite"
    file.write_bytes(content + b"\0")  # no longer the file that a manifest describes
    done = command_line("models", "add", file)
    assert done.returncode == 2
    assert done.stderr.count("\n  ") == 1  # how pictures are fitted, and nothing else
    assert "input.resize: likely" in done.stderr
    done = command_line("models", "add", file, "--resize", "stretch")
    assert done.returncode == 0, done.stderr
    done = command_line("predict", "mine", shared / "images" / "cats_and_dogs.jpg", "--json")
    assert [item["label"] for item in json.loads(done.stdout)["predictions"]][:3] == ["cat", "cat", "cat"]


def test_the_very_file_that_a_model_describes_needs_no_proposal(shared, command_line):
    done = command_line("models", "add", shared / "models" / SSD, "--name", "same")
    assert done.returncode == 0, done.stderr
    assert "the very file that ssd-mobilenet-v1-quant describes" in done.stdout
    assert "was measured" in done.stdout
    done = command_line("models", "add", shared / "models" / SSD, "--name", "other", "--size", "300")
    assert "unproved" in done.stdout  # described otherwise


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "a"], "--size: width x height"),
        (["--size", "²x²"], "--size: width x height"),
        (["--mean", "1,2"], "--mean: three numbers"),
        (["--raw", "--std", "1"], "leave out --mean and --std"),
        (["--output", "boxes"], "--output: as in boxes=output_3"),
        (["--labels", "nowhere.txt"], "nowhere.txt: labels: cannot be read"),
        (["--family", "yolo99", "--accept"], "unknown decode type 'yolo99'"),
        (["--like", "yolox-nano", "--accept"], "--accept and --dry-run belong to a proposal"),
        (["--color", "CMYK", "--accept"], "input.color"),
        (["--size", "320", "--accept"], "320x320"),
    ],
)
def test_what_cannot_be_said(shared, command_line, tmp_path, options, words):
    done = command_line("models", "add", shared / "models" / "yolox_nano.onnx", *options)
    assert done.returncode in (2, 4)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_pattern_describes_a_file_of_ones_own(command_line, tmp_path, shared):
    pytest.importorskip("onnx")
    file = make(tmp_path / "mine.onnx", [("whatever", "f", (1, 1000))], picture=(1, 3, 224, 224))
    done = command_line("models", "add", file, "--like", "resnet50")
    assert done.returncode == 0, done.stderr
    shown = json.loads(command_line("models", "show", "mine", "--json").stdout)
    assert (shown["input"]["mean"], shown["activation"]) == ([123.675, 116.28, 103.53], "softmax")
    assert shown["labels"][0] == "tench"
    done = command_line("predict", "mine", shared / "images" / "cat.bmp")
    assert done.returncode == 0
    own = make(tmp_path / "parts.onnx", [("o", "f", (1, 2))], picture=(1, 3, 240, 240))
    (tmp_path / "parts.txt").write_text("good\nbad\n")
    done = command_line("models", "add", own, "--like", "resnet50", "--size", "240", "--labels", tmp_path / "parts.txt")
    assert done.returncode == 0, done.stderr
    assert json.loads(command_line("models", "show", "parts", "--json").stdout)["labels"] == ["good", "bad"]


DETECTORS = {
    "rt-detr": [("logits", "f", (1, 9, 80)), ("pred_boxes", "f", (1, 9, 4))],
    "rf-detr": [("dets", "f", (1, 9, 4)), ("labels", "f", (1, 9, 91))],
    "faster-rcnn-torchvision": [("boxes", "f", (5, 4)), ("labels", "i", (5,)), ("scores", "f", (5,))],
    "deeplabv3-torchvision": [("out", "f", (1, 21, 96, 96)), ("aux", "f", (1, 21, 96, 96))],
}


@pytest.mark.parametrize("pattern", DETECTORS)
def test_patterns_take_the_size_of_the_file(command_line, tmp_path, pattern, shared):
    pytest.importorskip("onnx")
    file = make(tmp_path / "mine.onnx", DETECTORS[pattern], picture=(1, 3, 96, 96))
    done = command_line("models", "add", file, "--like", pattern)
    assert done.returncode == 0, done.stderr
    assert json.loads(command_line("models", "show", "mine", "--json").stdout)["input"]["size"] == [96, 96]
    assert command_line("predict", "mine", shared / "images" / "cat.bmp").returncode == 0


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_a_mutated_header_is_a_clear_error_or_a_proposal(shared, suffix, data):
    name = {".onnx": "nanodet_m_320.onnx", ".tflite": SSD}[suffix]
    content = bytearray((shared / "models" / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        # The metadata stands at a .tflite file's end, an .onnx file's names all over it.
        at = data.draw(st.integers(0, 4000) | st.integers(len(content) - 4000, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    mutated = bytes(content[:cut])
    try:
        graph = graphs.read(mutated, name)
    except ModelError:
        return
    specs = tuple(
        TensorSpec(name=tensor.name, shape=tensor.shape or (), dtype=np.dtype(np.float32)) for tensor in graph.outputs
    )
    picture = TensorSpec(name="p", shape=(1, 3, 320, 320), dtype=np.dtype(np.float32), layout="NCHW")
    proposal = propose(graph, mutated, (picture,), specs, file=name, name="m", told=Told())
    assert proposal.text().startswith(f"# proposed for {name}")


def test_an_export_with_its_post_processor_inside(command_line, tmp_path, shared):
    """RT-DETR's and D-FINE's second input is given the picture's size; no bare loop is measured beside such a model."""
    pytest.importorskip("onnx")
    from edgevision import assembly
    from edgevision.host.benchmark import jobs

    outputs = [("labels", "i", (1, 9)), ("boxes", "f", (1, 9, 4)), ("scores", "f", (1, 9))]
    file = make(tmp_path / "mine.onnx", outputs, extra=[("orig_target_sizes", "i", (1, 2))])
    done = command_line("models", "add", file, "--accept")
    assert done.returncode == 0, done.stderr
    assert command_line("predict", "mine", shared / "images" / "cat.bmp").returncode == 0
    model = assembly.load_model("mine")
    alone = jobs._runtime_alone(
        {"model": "mine", "providers": None, "threads": 1}, model, np.zeros((9, 9, 3), np.uint8), twin=False
    )
    model.close()
    assert "the bare loop gives the picture alone, and the model has images, orig_target_sizes" in alone["said"]


def test_a_pattern_alone_is_no_model(command_line, shared):
    done = command_line("predict", "resnet50", shared / "images" / "cat.bmp")
    assert done.returncode == 4
    assert "resnet50 is a pattern without a file; add yours: edgevision models add FILE --like resnet50" in done.stderr
    done = command_line("models", "list")
    assert "without files, for `models add FILE --like`" in done.stdout
    assert "vgg16-keras" in done.stdout


def test_a_flatbuffer_s_bounds():
    from edgevision.proposals.flatbuffer import root

    with pytest.raises(ValueError, match="are not b'M001'"):
        root(b"\0" * 20, b"M001")
    table = root(struct.pack("<I4s", 8, b"M001") + struct.pack("<i", -100) + bytes(4), b"M001")
    with pytest.raises((ValueError, struct.error)):
        table.text(0)
