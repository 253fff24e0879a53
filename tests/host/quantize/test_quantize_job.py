"""A whole quantisation, from a float model and two folders of pictures to a model that the daemon loads, or to a refusal."""

import json
import resource
import shutil
import signal
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import yaml
from quantize_support import CLASSES, Factory, make_factory, pictures

from edgevision import load_model
from edgevision.errors import ImageError, ModelError, StateError, UsageError
from edgevision.host.dataset.formats import read
from edgevision.host.quantize import job
from edgevision.host.quantize.job import Request, quantize, refusal
from edgevision.types import Classifications


@pytest.fixture(scope="module")
def factory(tmp_path_factory) -> Factory:
    return make_factory(tmp_path_factory.mktemp("factory"))


@pytest.fixture(scope="module")
def fragile(tmp_path_factory) -> Factory:
    return make_factory(tmp_path_factory.mktemp("fragile"), fragile=True)


def request(factory, out, **changes):
    asked = Request(
        model=str(factory.model),
        calibration=factory.calibration,
        target="x86",
        max_drop=1.0,
        out=out,
        calibration_pictures=24,
        latency_s=0.05,
    )
    return replace(asked, **changes)


def do(factory, asked, say=lambda _text: None):
    return quantize(asked, read(factory.labelled, None, split=None), say=say, warn=lambda _text: None)


@pytest.fixture(scope="module")
def made(factory, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, do(factory, request(factory, out))


def test_the_folder_is_a_model_that_the_daemon_loads_and_that_is_proved(made, factory):
    _out, outcome = made
    assert sorted(path.name for path in outcome.folder.iterdir()) == [
        "README.md",
        "labels.txt",
        "model.yaml",
        "parts-int8-x86.onnx",
    ]
    model = load_model(outcome.folder)
    assert model.manifest.proved
    right = []
    for path in factory.labelled.rglob("*.png"):
        found = model.predict(path)
        assert isinstance(found, Classifications)
        right.append(CLASSES[int(found.class_id[0])] == path.parent.name)
    model.close()
    assert np.mean(right) == pytest.approx(outcome.document["compared"]["figures"][0]["int8"])


def test_the_device_feeds_pixels_without_arithmetic(made):
    model = load_model(made[1].folder)
    assert model.backend.inputs[0].dtype == np.uint8
    model.close()


def test_the_lineage_tells_what_it_was_made_from(made, factory):
    manifest = yaml.safe_load((made[1].folder / "model.yaml").read_text())
    lineage = manifest["lineage"]
    assert lineage["from"]["sha256"] == load_model(factory.model).sha256
    assert lineage["calibration"]["pictures"] == 24
    assert lineage["recipe"]["name"] in {row["name"] for row in made[1].document["frontier"]}
    assert lineage["budget"] == {"max_drop_points": 1.0, "drop_points": 0.0, "allowed_over_budget": False}
    assert lineage["integer_convolutions"] == {"convolutions": 3, "of": 3}
    (top1, _balanced) = manifest["metrics"]
    assert (top1["metric"], top1["value"], top1["float"], top1["images"]) == ("top-1", 1.0, 1.0, 40)


def test_the_frontier_holds_float_and_float16_too(made):
    kinds = {row["kind"] for row in made[1].document["frontier"]}
    assert kinds == {"float", "float16", "weights", "int8"}
    for row in made[1].document["frontier"]:
        assert row["figure"] is not None
        assert row["size_bytes"] > 0
        assert row["kind"] == "float" or row["latency"]["low"] <= row["latency"]["ratio"] <= row["latency"]["high"]


def test_the_report_stands_beside_it(made):
    _out, outcome = made
    assert {"report.json", "report.md", "frontier.png"} <= {path.name for path in outcome.report.iterdir()}
    written = json.loads((outcome.report / "report.json").read_text())
    assert written == json.loads(json.dumps(outcome.document))
    text = (outcome.report / "report.md").read_text()
    for words in ("## Every candidate", "packaged", "SQNR", "24 of the 24 pictures"):
        assert words in text
    assert cv2.imread(str(outcome.report / "frontier.png")) is not None


def test_a_second_run_finds_the_candidates_finished(made, factory):
    out, _outcome = made
    said: list[str] = []
    again = do(factory, request(factory, out, name="again"), said.append)
    assert again.folder is not None
    assert said
    assert not any(line.startswith("making") for line in said), said


def test_a_name_that_is_taken_is_told_before_the_work(made, factory):
    with pytest.raises(UsageError, match="is there already; choose another name with --name"):
        do(factory, request(factory, made[0]), lambda text: pytest.fail(f"worked: {text}"))


def test_what_cannot_be_made_8_bit_is_refused_with_a_report_and_no_model(fragile, tmp_path):
    outcome = do(fragile, request(fragile, tmp_path, target="x86-vnni"))
    assert outcome.folder is None
    assert not (tmp_path / "parts-int8-x86-vnni").exists()
    text = (outcome.report / "report.md").read_text()
    assert text.startswith("# REFUSED")
    assert "points, 1 are allowed" in text
    # Each of the ten worst is shown with both answers.
    assert len(list((outcome.report / "pictures").glob("*.jpg"))) == 10
    failure = refusal(outcome)
    assert isinstance(failure, ModelError)
    assert "--allow-drop" in str(failure)


def test_allow_drop_packages_it_and_the_lineage_says_so(fragile, tmp_path):
    outcome = do(fragile, request(fragile, tmp_path, target="x86-vnni", allow_drop=True))
    assert outcome.folder is not None
    manifest = yaml.safe_load((outcome.folder / "model.yaml").read_text())
    assert manifest["lineage"]["budget"]["allowed_over_budget"] is True
    assert manifest["lineage"]["budget"]["drop_points"] > 1
    assert "allowed by --allow-drop" in (outcome.folder / "README.md").read_text()


def test_allow_float_lets_layers_be_spared_until_the_budget_is_kept(fragile, tmp_path):
    said: list[str] = []
    outcome = do(fragile, request(fragile, tmp_path, target="x86-vnni", allow_float=True), said.append)
    assert any("ranking the layers" in line for line in said)
    assert outcome.folder is not None
    (packaged,) = [row for row in outcome.document["frontier"] if row["packaged"]]
    assert packaged["spared"]
    assert packaged["drop_points"] <= 1.0


def test_a_finished_file_is_held_against_the_budget(made, fragile, factory, tmp_path):
    file = next(made[1].folder.glob("*.onnx"))
    proved = do(factory, request(factory, tmp_path, calibration=None, prove=file, name="proved"))
    assert proved.folder is not None
    assert [row["name"] for row in proved.document["frontier"]] == ["float", file.name]
    # The same file is no 8-bit form of another model.
    other = do(fragile, request(fragile, tmp_path, calibration=None, prove=file, name="other"))
    assert other.folder is None


def test_an_8_bit_model_is_no_source(made, tmp_path, factory):
    with pytest.raises(ModelError, match="is 8-bit already"):
        do(factory, request(factory, tmp_path, model=str(made[1].folder)))


def test_labels_that_do_not_fit_are_told_before_the_work(factory, tmp_path):
    shutil.copytree(factory.labelled, tmp_path / "labelled")
    (tmp_path / "labelled" / "bolt").rename(tmp_path / "labelled" / "bolts")
    other = replace(factory, labelled=tmp_path / "labelled")
    with pytest.raises(UsageError, match=r"labels do not fit the model: it has no 'bolts' \(did you mean 'bolt'"):
        do(other, request(factory, tmp_path / "out"), lambda text: pytest.fail(f"worked: {text}"))
    assert not list((tmp_path / "out").rglob("*.onnx"))


def test_a_corrupt_calibration_picture_ends_it(factory, tmp_path):
    shutil.copytree(factory.calibration, tmp_path / "calibration")
    (tmp_path / "calibration" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"broken\.png"):
        do(factory, request(factory, tmp_path / "out", calibration=tmp_path / "calibration", calibration_pictures=99))


def test_pictures_that_judge_may_not_calibrate(factory, tmp_path):
    with pytest.raises(UsageError, match="are also calibrated with"):
        do(factory, request(factory, tmp_path, calibration=factory.labelled))


def test_a_tflite_source_has_no_way_back_to_onnx(tmp_path, factory, shared):
    asked = request(factory, tmp_path, model=str(shared / "models" / "yolox_nano_float16.tflite"), like="yolox-nano")
    with pytest.raises(UsageError, match=r"takes an \.onnx file"):
        do(factory, asked)


def test_a_full_disk_is_one_error_and_nothing_half_written_stays(factory, tmp_path):
    asked = request(factory, tmp_path / "out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        with pytest.raises(StateError, match="cannot be written: File too large"):
            do(factory, asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_interrupted_it_leaves_no_half_written_file(factory, tmp_path, monkeypatch):
    def interrupted(*_arguments, **_settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "write_package", interrupted)
    with pytest.raises(KeyboardInterrupt):
        do(factory, request(factory, tmp_path))
    assert not (tmp_path / "parts-int8-x86").exists()
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith((".quantizing-", ".report-"))]
    assert not list(tmp_path.rglob("*.part"))


def test_another_seed_draws_other_pictures_and_is_another_candidate(made, factory, tmp_path):
    for number, picture in enumerate(pictures(40, seed=77)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    asked = request(factory, tmp_path / "out", calibration=tmp_path, calibration_pictures=8)
    first, second = do(factory, asked), do(factory, replace(asked, seed=1, name="second"))
    assert first.document["calibration"]["digest"] != second.document["calibration"]["digest"]
    assert first.document["calibration"]["of"] == 40


def test_a_broken_8_bit_tflite_of_a_real_detector_is_refused(shared, tmp_path):
    models = shared / "models"
    asked = Request(
        model=str(models / "yolox_nano_float16.tflite"),
        like="yolox-nano",
        calibration=None,
        prove=models / "yolox_nano_int8_BROKEN.tflite",
        target="litert",
        max_drop=1.0,
        out=tmp_path,
        calibration_pictures=1,
        latency_s=0.05,
        limit=16,
        iou=0.65,
    )
    data = read(shared / "images" / "coco-val" / "instances.json", None, split=None)
    outcome = quantize(asked, data, say=lambda _text: None, warn=lambda _text: None)
    assert outcome.folder is None
    (broken,) = outcome.document["frontier"][1:]
    assert broken["drop_points"] > 10
    assert broken["integers"]["convolutions"] == 0
    assert "points, 1 are allowed" in broken["problems"][0]


@pytest.mark.parametrize(("target", "backend"), [("arm64", "onnxrt"), ("jetson", "onnxrt"), ("openvino", "openvino")])
def test_every_target_gets_a_model_for_its_runtime(factory, tmp_path, target, backend):
    # The kind of model is looked at here, and not what it lost.
    outcome = do(factory, request(factory, tmp_path, target=target, max_drop=20.0))
    assert outcome.folder is not None
    manifest = yaml.safe_load((outcome.folder / "model.yaml").read_text())
    assert list(manifest["files"]) == [backend]
    assert manifest["lineage"]["target"] == target
    content = onnx.load(next(outcome.folder.glob("*.onnx")))
    zero_points = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in content.graph.initializer
        if tensor.name.endswith("zero_point") and tensor.data_type in {2, 3}
    }
    assert "DequantizeLinear" in {node.op_type for node in content.graph.node}
    if target == "jetson":  # TensorRT takes symmetric int8 alone
        assert zero_points
        assert all(value.dtype == np.int8 and not value.any() for value in zero_points.values())
    load_model(outcome.folder).close()
