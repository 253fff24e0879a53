"""Pulling models: shipped ones become the user's own, whole; the user's own get their file; mirrors."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from model_server import ModelServer
from support_brokers import wait_until

from edgevision import model_store
from edgevision.errors import ManifestError, ModelError, UsageError
from edgevision.manifest import MANIFEST_NAME, load_manifest
from edgevision.model_pull import pull
from edgevision.retry import Backoff

CONTENT = b"weights" * 10_000


@pytest.fixture(autouse=True)
def models_dir(tmp_path: Path, monkeypatch) -> Path:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "models"
    monkeypatch.setenv("EDGEVISION_MODELS", str(folder))
    return folder


def own_model(models_dir, url=None, *, name="mine", **file):
    folder = models_dir / name
    folder.mkdir(parents=True)
    entry = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT), **file}
    if url:
        entry["url"] = url
    manifest = {
        "name": name, "version": "1", "task": "detection", "family": "yolox", "files": {"onnxrt": entry},
        "input": {"size": [4, 4], "resize": "stretch"}, "outputs": {"predictions": "o"}, "licence": "x", "source": "test",
    }  # fmt: skip
    (folder / MANIFEST_NAME).write_text(yaml.safe_dump(manifest))
    return folder


def get(name, **more):
    return pull(name, backoff=lambda: Backoff(first_s=0.001, max_s=0.01), silence_s=0.5, **more)


def test_a_models_own_address(models_dir):
    with ModelServer(CONTENT) as server:
        folder = own_model(models_dir, server.url("files/m.onnx?raw=1"))
        found, files = get("mine")
        assert found.path == folder
        assert [(one.file, one.state) for one in files] == [("m.onnx", "pulled")]
        assert model_store.verify(found) == {"onnxrt": "ok"}
        assert sorted(path.name for path in models_dir.iterdir()) == ["mine"]
        asked = len(server.asked)
        assert [one.state for one in get("mine")[1]] == ["here"]
        assert len(server.asked) == asked
        (folder / "m.onnx").write_bytes(b"altered")
        assert [one.state for one in get("mine")[1]] == ["pulled"]
        assert (folder / "m.onnx").read_bytes() == CONTENT


def test_a_shipped_model_becomes_the_users_own_and_only_as_a_whole(models_dir, shared, command_line, monkeypatch):
    monkeypatch.setenv("EDGEVISION_MODELS", str(models_dir))
    shipped = model_store.find("ssd-mobilenet-v1-quant")
    assert shipped.shipped
    content = (shared / "models" / "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite").read_bytes()
    with ModelServer(content, "truncate", *["503"] * 10) as server:
        mirror = server.url("mirror")
        with pytest.raises(ModelError, match="pull again to go on"):
            get("ssd-mobilenet-v1-quant", mirror=mirror)
        assert model_store.find("ssd-mobilenet-v1-quant").shipped  # nothing half is seen
        server.faults.clear()
        done = command_line("models", "pull", "ssd-mobilenet-v1-quant", "--mirror", mirror)
        assert done.returncode == 0, done.stderr
        assert "2018_06_29.tflite: pulled" in done.stdout
        assert {path for path, _ in server.asked} == {
            "/mirror/ssd-mobilenet-v1-quant/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
        }
    own = model_store.find("ssd-mobilenet-v1-quant")
    assert own.path == models_dir / "ssd-mobilenet-v1-quant"
    assert own.manifest == shipped.manifest
    assert model_store.labels(own)
    assert sorted(path.name for path in models_dir.iterdir()) == ["ssd-mobilenet-v1-quant"]
    done = command_line("predict", "ssd-mobilenet-v1-quant", shared / "images" / "cats_and_dogs.jpg")
    assert "cat" in done.stdout


def test_ctrl_c_says_that_the_part_is_kept_and_the_next_pull_goes_on(models_dir, command_line, monkeypatch):
    monkeypatch.setenv("EDGEVISION_MODELS", str(models_dir))
    with ModelServer(CONTENT, "stall") as server:
        own_model(models_dir, server.url())
        process = subprocess.Popen(
            [sys.executable, "-m", "edgevision", "models", "pull", "mine"], stderr=subprocess.PIPE, text=True
        )
        assert server.halfway.wait(30)
        parts = models_dir / ".pulling"
        wait_until(lambda: any(path.suffix == ".json" for path in parts.iterdir()))
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        assert "mine: stopped; what has arrived is kept: pull again to go on" in said
        assert "Traceback" not in said
        assert process.returncode != 0
        done = command_line("models", "pull", "mine")
        assert done.returncode == 0, done.stderr
        assert not parts.exists()


def test_a_mirror_folder_from_the_environment_and_a_model_without_an_address(
    models_dir, tmp_path, command_line, monkeypatch
):
    monkeypatch.setenv("EDGEVISION_MODELS", str(models_dir))
    own_model(models_dir, path="m.onnx")
    done = command_line("models", "pull", "mine")
    assert done.returncode == 4
    assert "names no address; give --mirror" in done.stdout
    assert "models add FILE --like mine" in done.stderr
    there = tmp_path / "stick" / "mine"
    there.mkdir(parents=True)
    (there / "m.onnx").write_bytes(CONTENT)
    monkeypatch.setenv("EDGEVISION_MIRROR", str(tmp_path / "stick"))
    done = command_line("models", "pull", "mine")
    assert done.returncode == 0, done.stderr
    assert model_store.verify(model_store.find("mine")) == {"onnxrt": "ok"}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["none"], 2, "unknown model 'none'"),
        (["mine", "--backend", "litert"], 2, "names no file for litert; it names some for onnxrt"),
        (["mine", "--mirror", "/nowhere"], 2, "/nowhere: no such folder"),
        (["mine", "--mirror", "http://[bad"], 2, "http://[bad: is no address: Invalid IPv6 URL"),
        (["mine", "--mirror", "ftp://x/y"], 2, "must be a folder, or begin with https:"),
        (["mine"], 4, "cannot be read: No such file"),
    ],
)
def test_mistakes_are_one_line(models_dir, command_line, monkeypatch, arguments, status, words):
    monkeypatch.setenv("EDGEVISION_MODELS", str(models_dir))
    own_model(models_dir, "file:///nowhere/m.onnx")
    done = command_line("models", "pull", *arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["models", "pull", "rt-detr"], ["models", "export", "rt-detr", "x"], ["inspect", "rt-detr"]]
)
def test_a_pattern_has_no_file_and_says_how_to_add_one(command_line, arguments):
    done = command_line(*arguments)
    assert done.returncode == 4
    assert "rt-detr is a pattern without a file; add yours: edgevision models add FILE --like rt-detr" in done.stderr


def test_what_is_wholly_here_needs_no_folder_to_pull_into(models_dir):
    models_dir.write_text("no folder")
    folder, files = get("efficientnet-lite0")
    assert folder.shipped
    assert {one.state for one in files} == {"here"}


def test_an_unknown_backend_is_a_usage_error(models_dir):
    own_model(models_dir, "file:///nowhere/m.onnx")
    with pytest.raises(UsageError):
        get("mine", backends=["hailo"])


@pytest.mark.parametrize(
    "url", ["https://x/..", "https://x/", "https://x", "https://x/a/%2e%2e", "https://x/a%2f..%2f..%2fb/.hidden", "ftp://x/m.onnx",
            "javascript:m.onnx", "/etc/passwd"],
)  # fmt: skip
def test_an_address_cannot_name_a_file_outside_the_folder(models_dir, url):
    folder = own_model(models_dir, url)
    with pytest.raises(ManifestError, match="`url`"):
        load_manifest(folder)
