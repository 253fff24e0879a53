from pathlib import Path

import pytest

from edgevision import assembly, model_store
from edgevision.errors import ModelError, StateError, UsageError
from edgevision.types import Detections


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("EDGEVISION_MODELS", str(folder))
    return folder


def test_an_unknown_model_lists_the_known(models_dir):
    with pytest.raises(UsageError, match="did you mean 'yolox-nano'"):
        model_store.find("yolox-nan")
    with pytest.raises(UsageError, match="no such model"):
        model_store.find("./nowhere")


def test_adding_describing_and_using_a_real_file(models_dir, shared):
    file = shared / "models" / "yolox_nano.onnx"
    described = assembly.describe(file, model_store.find("yolox-nano"), name="bottles")
    described.model.close()
    added = model_store.add(described.manifest, described.content, labels_from=described.labels_from)
    assert added.path == models_dir / "bottles"
    assert not added.shipped
    assert not added.manifest.proved
    assert model_store.verify(added) == {"onnxrt": "ok"}
    assert "bottles" in {folder.name for folder in model_store.list_folders()}
    found = assembly.load_model("bottles").predict(shared / "images" / "cats_and_dogs.jpg")
    assert isinstance(found, Detections)
    assert [found.labels[class_id] for class_id in found.class_id[:3]] == ["cat", "cat", "cat"]
    with pytest.raises(UsageError, match="choose another with --name"):
        model_store.add(described.manifest, described.content, labels_from=described.labels_from)


def test_an_altered_model_is_refused(models_dir, shared):
    described = assembly.describe(shared / "models" / "yolox_nano.onnx", model_store.find("yolox-nano"), name="m")
    added = model_store.add(described.manifest, described.content, labels_from=described.labels_from)
    weights = added.path / "yolox_nano.onnx"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="sha256"):
        assembly.load_model("m")
    assert "altered" in model_store.verify(added)["onnxrt"]
    weights.write_bytes(content[:-10])
    with pytest.raises(ModelError, match="truncated"):
        assembly.load_model("m")


@pytest.mark.parametrize(
    ("file", "like", "words"),
    [
        ("mobilenet_v2_1.0_224_quant.tflite", "yolox-nano", "mobilenet_v2_1.0_224_quant.tflite"),
        ("nanodet_m_320.onnx", "yolox-nano", "outputs"),
        ("person_detect_REFUSED.tflite", "mobilenet-v2-quant", "LiteRT refuses it"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(models_dir, shared, file, like, words):
    with pytest.raises(ModelError, match=words):
        assembly.describe(shared / "models" / file, model_store.find(like))
    assert not models_dir.exists()


def test_a_bare_file_is_identified_only_when_one_model_fits(models_dir, shared, caplog):
    found = assembly.identify(shared / "models" / "yolox_nano.onnx")
    assert found.like == "yolox-nano"
    assert "read like the one known model that it fits" in caplog.text
    found.model.close()
    with pytest.raises(UsageError, match="--like"):
        assembly.identify(shared / "models" / "yolov8n_int8_416_AGPL_test_only.tflite")


def test_shapes_alone_do_not_tell_which_classifier_it_is(models_dir, shared, tmp_path):
    """Any classifier of 1000 classes and 224 pixels fits the shipped one, whatever mean and std it was trained with."""
    shipped = model_store.find("efficientnet-lite0")
    file = tmp_path / "resnet.onnx"
    content = (shipped.path / shipped.manifest.file_for("onnxrt").file_name).read_bytes()
    file.write_bytes(content)
    known = assembly.identify(file)  # the very file
    assert known.like == "efficientnet-lite0"
    known.model.close()
    file.write_bytes(content + b"\x72\x00")  # metadata that is empty: another digest, the same network
    with pytest.raises(
        UsageError, match=r"--like \(it fits efficientnet-lite0, but so does .*or let `edgevision models add"
    ):
        assembly.identify(file)
    named = assembly.identify(file, like="efficientnet-lite0")
    named.model.close()


def test_a_file_of_another_kind(models_dir, tmp_path):
    file = tmp_path / "m.pt"
    file.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"\.onnx, \.tflite"):
        model_store.describe_file(file, model_store.find("yolox-nano").manifest)


@pytest.mark.parametrize("content", [b"", b"x", b"\x08\x07" * 500])
def test_a_file_that_is_no_model(models_dir, tmp_path, content):
    for name, like in (("m.onnx", "yolox-nano"), ("m.tflite", "mobilenet-v2-quant")):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(ModelError):
            assembly.describe(file, model_store.find(like))


def test_a_folder_that_cannot_be_written_leaves_nothing_half_written(tmp_path, shared):
    described = assembly.describe(shared / "models" / "yolox_nano.onnx", model_store.find("yolox-nano"), name="m")
    root = tmp_path / "file"
    root.write_text("not a folder")
    with pytest.raises(StateError, match="cannot be written"):
        model_store.add(described.manifest, described.content, labels_from=described.labels_from, models_dir=root)
    labels_gone = tmp_path / "models"
    with pytest.raises(StateError, match="cannot be written"):
        model_store.add(described.manifest, described.content, labels_from=tmp_path / "gone", models_dir=labels_gone)
    assert list(labels_gone.iterdir()) == []
