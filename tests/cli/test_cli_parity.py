"""`edgevision parity` as a user meets it: a good export passes, a broken one does not."""

import json
from pathlib import Path

import pytest

import edgevision

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


@pytest.fixture
def run(command_line):
    return lambda *arguments: command_line("parity", *arguments)


def test_a_good_export_passes(run, shared, tmp_path):
    models, pictures = shared / "models", shared / "images" / "coco-val"
    done = run(
        models / "yolox_nano.onnx", models / "yolox_nano_float16.tflite", pictures, "--like", "yolox-nano", "--limit", 12,
        "--json", tmp_path / "parity.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the models are the same within tolerance" in done.stdout
    found = json.loads((tmp_path / "parity.json").read_text())
    assert found["outputs"][0]["by"] == "role predictions"
    assert found["outputs"][0]["sqnr_db"] > 30
    assert found["predictions"]["agreement"] > 0.98


def test_a_broken_export_does_not(run, shared, tmp_path):
    models, pictures = shared / "models", shared / "images" / "coco-val"
    done = run(
        models / "yolox_nano_float16.tflite", models / "yolox_nano_int8_BROKEN.tflite", pictures, "--like", "yolox-nano",
        "--limit", 12, "--json", tmp_path / "parity.json", "--min-sqnr", 10, "--tolerance", 0.2,
    )  # fmt: skip
    assert done.returncode == 1
    assert "edgevision: error: the models differ: SQNR" in done.stderr
    assert "of predictions agree (at least 80% is asked for)" in done.stderr
    assert json.loads((tmp_path / "parity.json").read_text())["same"] is False


def test_a_models_two_files(run):
    done = run(
        "efficientnet-lite0", "efficientnet-lite0", PHOTOS, "--backend-a", "onnxrt", "--backend-b", "litert",
        "--min-sqnr", 10, "--tolerance", 0.4,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "top-1 agrees" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nothing", "efficientnet-lite0", PHOTOS], 2, "unknown model 'nothing'"),
        (["efficientnet-lite0", "efficientnet-lite0", "/nowhere"], 2, "no such file or folder"),
        (["efficientnet-lite0", "efficientnet-lite0", "pyproject.toml"], 6, "none of the 1 pictures can be read"),
        (["efficientnet-lite0", "efficientnet-lite0", PHOTOS, "--tolerance", 2], 2, "tolerance"),
        (["efficientnet-lite0", "/nowhere.onnx", PHOTOS, "--like", "yolox-nano"], 4, "/nowhere.onnx"),
    ],
)
def test_a_users_mistake_is_one_clear_error(run, arguments, status, words):
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
