import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgevision.errors import ManifestError, ModelError
from edgevision.manifest import load_labels, load_manifest, read_weights

WEIGHTS = b"the weights"
GOOD: dict[str, Any] = {
    "name": "m",
    "version": "1",
    "task": "classification",
    "family": "classifier",
    "files": {"onnxrt": {"path": "m.onnx", "sha256": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS)}},
    "input": {"size": [4, 4], "resize": "stretch", "mean": [1, 2, 3], "std": [4, 5, 6]},
    "outputs": {"scores": "logits"},
    "licence": "Apache-2.0",
    "source": "a test",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(WEIGHTS)
    return tmp_path


def write(folder, **changes):
    (folder / "model.yaml").write_text(yaml.safe_dump({**GOOD, **changes}))
    return folder


def test_a_good_manifest_and_its_weights(folder):
    manifest = load_manifest(write(folder))
    assert read_weights(folder, manifest, "onnxrt") == WEIGHTS
    assert not manifest.proved
    assert load_labels(folder, manifest) == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WEIGHTS[:-1], "truncated or altered"),
        (WEIGHTS + b"x", "truncated or altered"),
        (b"The weights", "the file was altered"),
        (b"", "truncated or altered"),
    ],
)
def test_weights_that_differ_are_an_error(folder, content, words):
    manifest = load_manifest(write(folder))
    (folder / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        read_weights(folder, manifest, "onnxrt")


def test_weights_that_are_missing_name_the_fix(folder):
    manifest = load_manifest(write(folder))
    (folder / "m.onnx").unlink()
    with pytest.raises(ModelError, match="edgevision models add FILE --like m"):
        read_weights(folder, manifest, "onnxrt")
    with pytest.raises(ModelError, match="has no file for litert; it has onnxrt"):
        read_weights(folder, manifest, "litert")


@pytest.mark.parametrize("path", ["../m.onnx", "/etc/passwd", "a/b.onnx", ".hidden", "..", ""])
def test_a_path_cannot_leave_the_folder(folder, path):
    files = {"onnxrt": {**GOOD["files"]["onnxrt"], "path": path}}
    with pytest.raises(ManifestError, match=r"files\.onnxrt\.path"):
        load_manifest(write(folder, files=files))


@pytest.mark.parametrize("labels", ["../labels.txt", "/etc/passwd"])
def test_labels_cannot_leave_the_folder(folder, labels):
    with pytest.raises(ManifestError, match="labels"):
        load_manifest(write(folder, labels=labels))


def test_an_override_changes_what_it_names_and_null_takes_away(folder):
    files = {"onnxrt": {**GOOD["files"]["onnxrt"], "input": {"mean": None, "std": None, "color": "BGR"}}}
    section = load_manifest(write(folder, files=files)).input_for("onnxrt")
    assert (section.mean, section.std, section.color, section.size) == (None, None, "BGR", (4, 4))


def test_every_shipped_manifest_is_good_and_its_labels_are_there():
    from edgevision.environment import shipped_models_dir

    folders = [path.parent for path in shipped_models_dir().glob("*/model.yaml")]
    assert {"efficientnet-lite0", "yolox-nano"} <= {path.name for path in folders}
    for path in folders:
        manifest = load_manifest(path)
        assert manifest.name == path.name
        assert load_labels(path, manifest)
        assert (path / "README.md").is_file()


def test_the_shipped_model_is_whole_and_proved():
    from edgevision import model_store

    folder = model_store.find("efficientnet-lite0")
    assert model_store.verify(folder) == {"onnxrt": "ok", "litert": "ok"}
    assert folder.manifest.proved
    assert len(model_store.labels(folder)) == 1000
