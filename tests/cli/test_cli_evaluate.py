"""`edgevision evaluate` as a user meets it."""

import json
import shutil
from pathlib import Path

import pytest

import edgevision
from edgevision.errors import StateError
from edgevision.host.evaluate import tables

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"
NAMES = {"coffee.jpg": "espresso", "rocket.jpg": "missile", "grace_hopper.jpg": "military uniform"}


@pytest.fixture
def run(command_line):
    return lambda *arguments: command_line("evaluate", *arguments)


@pytest.fixture
def folders(tmp_path):
    """A folder for each class."""
    for file, label in NAMES.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        shutil.copy(PHOTOS / file, tmp_path / "data" / label)
    return tmp_path / "data"


def test_table_json_and_plots(run, folders, tmp_path):
    done = run(
        "efficientnet-lite0", folders, "--json", tmp_path / "out.json", "--plots", tmp_path / "plots", "--corrupt",
        "blur,dark", "--severity", "1,5", "--against", "efficientnet-lite0", "--against-backend", "litert",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("top-5", "balanced accuracy", "severity 5", "95 % interval", "only 3 pictures"):
        assert words in done.stdout
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["schema"] == "edgevision/evaluation/1"
    assert [model["backend"] for model in document["models"]] == ["onnxrt", "litert"]
    assert document["dataset"]["looked_at"] == 3
    assert len(document["dataset"]["digest"]) == 64
    assert document["host"]["cores"]
    assert len(document["models"][1]["robustness"]["slices"]) == 4
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        f"efficientnet-lite0-{backend}-{plot}.png"
        for backend in ("litert", "onnxrt")
        for plot in ("confusion", "robustness")
    ]


def test_the_json_is_there_though_the_table_cannot_be_printed(run, folders, tmp_path, monkeypatch):
    def broken(_facts):
        raise StateError("no terminal")

    monkeypatch.setattr(tables, "header", broken)
    assert run("efficientnet-lite0", folders, "--json", tmp_path / "out.json").returncode == 8
    assert json.loads((tmp_path / "out.json").read_text())["models"]


def test_a_broken_picture_ends_it_with_6_and_is_left_out_when_told(run, folders):
    (folders / "espresso" / "broken.jpg").write_bytes(b"no picture")
    done = run("efficientnet-lite0", folders)
    assert done.returncode == 6
    assert "broken.jpg" in done.stderr
    assert "--skip-faulty" in done.stderr
    done = run("efficientnet-lite0", folders, "--skip-faulty")
    assert done.returncode == 0
    assert "broken.jpg" in done.stderr
    assert "left out: 1 faults" in done.stdout


def test_a_held_out_test_set_says_how_often_it_was_used(run, folders):
    (folders / "dataset.yaml").write_text("role: test\n")
    uses = [run("efficientnet-lite0", folders).stdout for _ in range(2)]
    assert "held-out test set; it had been used 0 times before" in uses[0]
    assert "held-out test set; it had been used 1 times before" in uses[1]


def test_a_limit_is_said(run, folders):
    done = run("efficientnet-lite0", folders, "--limit", 2)
    assert "2 of 3 pictures (--limit 2: a stratified choice, seed 0)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nothing", "{data}"], 2, "unknown model 'nothing'"),
        (["efficientnet-lite0", "/nowhere"], 2, "no such file or folder"),
        (["efficientnet-lite0", "{data}", "--format", "vocc"], 2, "did you mean 'voc'"),
        (["efficientnet-lite0", "{data}", "--corrupt", "rain"], 2, "unknown corruption 'rain'"),
        (["efficientnet-lite0", "{data}", "--severity", "9"], 2, "must be 1 to 5"),
        (["efficientnet-lite0", "{data}", "--like", "yolox-nano"], 2, "--like describes a bare model file"),
        (["efficientnet-lite0", "{data}", "--confidence", "0.3"], 2, "--confidence: a classification is scored by all"),
        (["efficientnet-lite0", "{data}", "--json", "/proc/x/y.json"], 8, "cannot be written"),
        (["efficientnet-lite0", "{misspelt}"], 2, "did you mean 'espresso'?"),
    ],
)
def test_a_users_mistake_is_one_clear_error(run, folders, tmp_path, arguments, status, words):
    misspelt = tmp_path / "misspelt"
    (misspelt / "espreso").mkdir(parents=True)
    (misspelt / "rocket").mkdir()
    shutil.copy(PHOTOS / "coffee.jpg", misspelt / "espreso")
    shutil.copy(PHOTOS / "rocket.jpg", misspelt / "rocket")
    done = run(*(text.format(data=folders, misspelt=misspelt) for text in arguments))
    assert done.returncode == status, done.stderr
    assert words in done.stderr


def test_yolox_on_coco(run, shared, tmp_path):
    model, data = shared / "models" / "yolox_nano.onnx", shared / "images" / "coco-val"
    done = run(model, data, "--like", "yolox-nano", "--iou", 0.65, "--limit", 50, "--json", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out").read_text())["models"]
    # Over all 158 pictures it is 0.287; the choice holds a picture of each rare class, and those are easy ones.
    assert found["figure"] == {"name": "AP", "value": pytest.approx(0.389, abs=0.005)}
    assert found["thresholds"] == {
        "confidence": 0.01,
        "own_confidence": 0.3,
        "iou": 0.65,
        "class_agnostic": False,
        "max_detections": 100,
    }
    assert len(found["result"]["classes"]) == 80


def test_a_detector_in_tiles(run, shared, tmp_path, folders):
    pytest.importorskip("pycocotools")
    done = run(
        shared / "models" / "yolox_nano.onnx", shared / "images" / "coco-val" / "instances.json", "--like", "yolox-nano",
        "--limit", "4", "--tile", "400x400", "--tile-levels", "1", "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (model,) = json.loads((tmp_path / "out.json").read_text())["models"]
    assert model["tiling"]["size"] == [400, 400]
    assert model["tiling"]["levels"] == 1
    assert model["result"]["ap"] > 0
    done = run("efficientnet-lite0", folders, "--tile", "400x400")
    assert done.returncode == 4
    assert "tiling puts boxes together" in done.stderr
