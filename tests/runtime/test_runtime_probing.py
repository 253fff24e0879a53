"""A model that nobody has run here is run once elsewhere: what crashes, hangs or eats memory takes down a child only."""

import json
import shutil

import numpy as np
import pytest
import yaml
from runtime_support import Watched, make

from edgevision import assembly, child, config, documents, model_store, registry
from edgevision.assembly import ModelSettings, Prober, probing
from edgevision.doctor.runtimes import TINY
from edgevision.errors import ConfigError, ModelError, ProbeError

PLUGIN = """
import ctypes
import os
import threading
from pathlib import Path

from edgevision.errors import ModelError
from edgevision.inference import onnxrt
from edgevision.inference.onnxrt import Options

READS = (".onnx",)


def create(options, model, context):
    how = Path(os.environ["SICK"], "how").read_text()
    if how == "crash":
        ctypes.string_at(0)
    if how == "hang":
        threading.Event().wait()
    if how == "eat":
        bytearray(3 << 30)
    if how == "poor":
        raise ModelError("m.onnx: Failed to allocate memory for requested buffer of size 1")
    return onnxrt.create(options, model, context)
"""


def open_sized():
    """An ONNX file with an open size that runs at a width and height of 8 alone."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 192])],
        [numpy_helper.from_array(np.array([1, 192], np.int64), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def sick(tmp_path, monkeypatch):
    """A backend from an outside package that does to its process what a file says."""
    site, info = tmp_path / "site", tmp_path / "site" / "sick-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "sick_backend.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sick\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgevision.inference]\nsick = sick_backend\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("SICK", str(tmp_path))
    (tmp_path / "how").write_text("crash")
    registry._outside.cache_clear()
    yield tmp_path / "how"
    registry._outside.cache_clear()


def check(prober, content=None, backend="sick", **options):
    settings = ModelSettings(backend_options=options)
    return prober.check(backend, content or TINY, settings, where="m.onnx")


@pytest.mark.parametrize(
    ("how", "limits", "words"),
    [
        ("crash", {}, "crashed with SIGSEGV"),
        ("hang", {"deadline_s": 3}, "gave no answer within 3 s and was killed"),
        ("eat", {}, "needs more than the 1024 MiB that it may have"),
    ],
)
def test_what_ends_its_process_is_refused_and_not_remembered(sick, tmp_path, how, limits, words):
    sick.write_text(how)
    prober = Prober(state_dir=tmp_path / "state", **limits)
    for _ in range(2 if how == "crash" else 1):
        with pytest.raises(ProbeError, match=words) as caught:
            check(prober)
        assert str(caught.value).startswith(
            "m.onnx: its runtime (sick) was tried with it in a process of its own, which "
        )
    assert not (tmp_path / "state").exists()


def test_a_pass_is_remembered_by_what_it_depends_on(tmp_path, monkeypatch):
    prober = Prober(state_dir=tmp_path)
    assert check(prober, backend="onnxrt") is True
    assert check(prober, backend="onnxrt") is False
    assert check(prober, TINY + b"\x12\x00", backend="onnxrt") is True
    assert check(prober, backend="onnxrt", spinning="off") is True
    assert check(prober, backend="openvino") is True
    monkeypatch.setattr(probing, "_versions", lambda backend: {"onnxruntime": "99"})
    assert check(prober, backend="onnxrt") is True
    passes = [json.loads(file.read_text()) for file in (tmp_path / "probed").iterdir()]
    assert len(passes) == 5
    assert all(one["model"] == "m.onnx" and one["runtime"] for one in passes)


def test_only_so_many_are_remembered_and_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(probing, "_KEPT", 1)
    prober = Prober(state_dir=tmp_path)
    check(prober, backend="onnxrt")
    check(prober, backend="onnxrt", spinning="off")
    assert check(prober, backend="onnxrt", spinning="off") is False
    assert len(list((tmp_path / "probed").iterdir())) == 1
    (tmp_path / "file").write_text("")
    assert check(Prober(state_dir=tmp_path / "file"), backend="onnxrt") is True
    assert "will be tried again at the next start" in caplog.text


def test_what_a_runtime_refuses_in_good_order_is_not_tried_again_here(tmp_path):
    prober = Prober(state_dir=tmp_path)
    with pytest.raises(ModelError, match=r"m\.onnx.*ONNX Runtime says: .*protobuf parsing failed"):
        check(prober, b"no model", backend="onnxrt")
    # With options the trial may be what fails: a device without memory for two, a limit that a driver does not bear.
    assert check(prober, b"no model", backend="onnxrt", spinning="off") is True
    assert not (tmp_path / "probed").exists()


def test_a_lack_of_memory_in_good_order_is_left_to_the_load(sick, tmp_path):
    sick.write_text("poor")
    prober = Prober(state_dir=tmp_path)
    assert check(prober) is True
    assert not (tmp_path / "probed").exists()


def test_a_run_with_a_size_that_was_only_guessed_proves_nothing(tmp_path, shared):
    content = open_sized()
    assert check(Prober(state_dir=tmp_path), content, backend="onnxrt") is True
    assert not (tmp_path / "probed").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate", "parity", "demo"])
def test_commands_meet_a_bare_file_in_a_child_first(sick, command, tmp_path, command_line, shared, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setitem(model_store.BACKEND_BY_SUFFIX, ".onnx", "sick")
    file = shared / "models" / "yolox_nano.onnx"
    more = {
        "predict": (file, shared / "images" / "coco-val"),
        "evaluate": (file, shared / "images" / "coco-val"),
        "parity": (file, file, shared / "images" / "coco-val"),
        "demo": ("--model", file),
    }
    done = command_line(command, *more[command], "--like", "yolox-nano")
    assert done.returncode == 4, done.stderr
    assert "crashed with SIGSEGV" in done.stderr


def test_an_outside_backend_is_known_by_its_package(sick):
    assert probing._versions("sick") == {"sick": "1.0"}
    assert probing._versions("replay") == {}
    assert "onnxruntime" in " ".join(probing._versions("onnxrt"))


def test_the_shipped_model_needs_no_probe(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "call", lambda *_, **__: pytest.fail("a child was asked"))
    prober = Prober(state_dir=tmp_path)
    assembly.load_model("efficientnet-lite0", prober=prober).close()
    with pytest.raises(pytest.fail.Exception):
        assembly.load_model(
            "efficientnet-lite0", prober=prober, settings=ModelSettings(backend_options={"spinning": "off"})
        )


def test_models_add_meets_the_file_in_a_child_first(sick, tmp_path, command_line, shared, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))  # nothing has been probed there yet
    called = []
    real = child.call

    def call(*given, **more):
        called.append(given)
        return real(*given, **more)

    monkeypatch.setattr(child, "call", call)
    done = command_line("models", "add", shared / "models" / "yolox_nano.onnx", "--like", "yolox-nano")
    assert done.returncode == 0, done.stderr
    assert len(called) == 1
    monkeypatch.setitem(model_store.BACKEND_BY_SUFFIX, ".onnx", "sick")
    done = command_line(
        "models", "add", shared / "models" / "yolox_nano.onnx", "--like", "yolox-nano", "--name", "other"
    )
    assert done.returncode == 4
    assert "crashed with SIGSEGV" in done.stderr


# In the daemon


def settings(tmp_path, backend="sick"):
    """Two models, of which one is the shipped one copied to where nobody knows it."""
    folder = tmp_path / "models" / "copy"
    if not folder.exists():
        shutil.copytree(model_store.find("efficientnet-lite0").path, folder)
        manifest = yaml.safe_load((folder / "model.yaml").read_text())
        (folder / "model.yaml").write_text(yaml.safe_dump({**manifest, "name": "copy"}))
    models = {"good": {"model": "efficientnet-lite0"}, "bad": {"model": str(folder), "backend": backend}}
    return make(models, tmp_path)


def test_a_model_that_crashes_is_left_out_and_the_others_go_on(sick, tmp_path):
    with Watched(settings(tmp_path)) as daemon:
        daemon.wait_for("good-eye/results")
        off = daemon.wait_for("bad-eye/status")
        assert (off["camera_state"], off["trusted"]) == ("off", False)
        assert "model bad is left out" in off["reason"]
        assert "crashed with SIGSEGV" in off["reason"]
        status = daemon.wait_for("status", lambda told: told["alarms"])
        assert "crashed with SIGSEGV" in status["alarms"][0]
        assert [*status["models"]] == ["good"]
        # It stands in the way of no other change, and is told of again.
        other = settings(tmp_path)
        camera = other.cameras[0].model_copy(update={"fps": 5.0})
        daemon.reload(other.model_copy(update={"cameras": [camera, other.cameras[1]]}))
        daemon.wait_for("status", lambda told: told["reason"].endswith("taken over: started cameras: good-eye"))
        assert "model bad is left out" in daemon.wait_for("bad-eye/status")["reason"]
        # Mended, a reload of the very same config takes it in.
        sick.write_text("well")
        daemon.reload(settings(tmp_path))
        daemon.wait_for("bad-eye/results")
        daemon.wait_for("status", lambda told: not told["alarms"] and set(told["models"]) == {"good", "bad"})


def test_a_reload_that_brings_such_a_model_is_refused(sick, tmp_path):
    with Watched(settings(tmp_path, backend="onnxrt")) as daemon:
        daemon.wait_for("bad-eye/results")
        daemon.reload(settings(tmp_path))
        refused = daemon.wait_for("status", lambda told: "refused" in told["reason"])
        assert "crashed with SIGSEGV" in refused["reason"]
        daemon.wait_for("bad-eye/results")


def test_where_no_model_survives_the_start_fails(sick, tmp_path):
    whole = settings(tmp_path)
    alone = whole.model_copy(update={"cameras": whole.cameras[1:]})
    with pytest.raises(ProbeError, match="crashed with SIGSEGV"), Watched(alone):
        pass


def test_the_config_bounds_the_probe_and_can_leave_it_out(sick, tmp_path):
    sick.write_text("hang")
    whole = settings(tmp_path)
    supervision = whole.supervision.model_copy(update={"probe_deadline_s": 2.0})
    alone = whole.model_copy(update={"cameras": whole.cameras[1:], "supervision": supervision})
    with pytest.raises(ProbeError, match="within 2 s"), Watched(alone):
        pass
    document = documents.Document(file="t", data={"models": {"m": {"model": "x", "probe": "often"}}}, lines={})
    with pytest.raises(ConfigError, match="input should be 'auto' or 'never'; found 'often'"):
        config.from_document(document, folder=tmp_path, environ={})
