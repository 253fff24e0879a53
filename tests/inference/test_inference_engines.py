"""Engines that take minutes: what TensorRT's cache is keyed by, and how the next provider serves until it is built.

No GPU is needed: keys, options and the order of things are plain functions; the switch is made between two real sessions of
ONNX Runtime, the engine's builder being a real child process. What only a GPU can show is not run here.
"""

import threading
from dataclasses import replace

import numpy as np
import pytest
from inference_support import add_model, load, zeros_for
from support_brokers import HandClock

from edgevision import child, registry
from edgevision.errors import ModelError, StateError
from edgevision.inference import _tensorrt
from edgevision.inference._providers import parse
from edgevision.inference._switching import Switching
from edgevision.inference._tensorrt import Place, cache_folder, check_writable, gpu_name, is_built, way, with_cache
from edgevision.inference.base import BackendContext, ModelFile

HERE = Place(ort="1.23.0", tensorrt="10.7.0", gpu="NVIDIA L4 driver 550.54")
PATIENCE_S = 60


def test_an_engine_s_folder_is_its_own_for_all_it_depends_on(tmp_path):
    entry = parse({"tensorrt": {"cache_dir": str(tmp_path)}})
    folders = {
        cache_folder(entry, "a" * 64, HERE),
        cache_folder(entry, "b" * 64, HERE),
        *(cache_folder(entry, "a" * 64, replace(HERE, **{key: "other"})) for key in ("ort", "tensorrt", "gpu")),
        cache_folder(parse({"tensorrt": {"cache_dir": str(tmp_path), "trt_fp16_enable": True}}), "a" * 64, HERE),
    }
    assert len(folders) == 6
    assert all(folder.parent == tmp_path for folder in folders)
    assert cache_folder(entry, "a" * 64, HERE).name.endswith("-ort1.23.0-trt10.7.0-NVIDIA-L4-driver-550.54")
    assert cache_folder(parse("tensorrt"), "a" * 64, HERE).parent.name == "engines"  # in the state folder


def test_explicit_quantisers_and_both_caches_unless_the_user_says_otherwise(tmp_path):
    entry = parse({"tensorrt": {"cache_dir": "x", "device_id": 1, "optional": True, "trt_timing_cache_enable": False}})
    made = with_cache(entry, tmp_path, quantised=True)
    assert made.options == {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": False,
        "trt_timing_cache_path": str(tmp_path),
        "trt_int8_enable": True,
        "device_id": 1,
    }
    assert made.optional
    assert not any("calibration" in key for key in made.options)
    assert "trt_int8_enable" not in with_cache(entry, tmp_path, quantised=False).options


def test_a_cache_that_cannot_be_written_to_is_a_fault_before_anything_is_built(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert not is_built(tmp_path / "new" / "folder")
    (tmp_path / "new" / "folder" / "TensorrtExecutionProvider_x_sm89.engine").touch()
    assert is_built(tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"would build for minutes at every start; give `tensorrt` a `cache_dir`"):
        check_writable(tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    ("names", "built", "engines", "wanted"),
    [
        (["tensorrt", "cuda", "cpu"], False, "background", "background"),
        (["tensorrt", "cuda", "cpu"], True, "background", "whole"),
        (["tensorrt", "cuda", "cpu"], False, "wait", "whole"),
        (["tensorrt", "cuda", "cpu"], False, "skip", "rest"),
        (["tensorrt", "cuda", "cpu"], True, "skip", "whole"),
        (["tensorrt"], False, "background", "whole"),  # nobody else could serve
    ],
)
def test_how_a_list_with_tensorrt_is_begun(names, built, engines, wanted):
    assert way([parse(name) for name in names], built=built, engines=engines) == wanted


def test_gpus_are_known_by_the_driver_s_own_words(tmp_path):
    assert gpu_name(tmp_path) == "unknown GPU"
    board = tmp_path / "proc/device-tree"
    board.mkdir(parents=True)
    (board / "model").write_text("NVIDIA Jetson Orin Nano\0")
    assert gpu_name(tmp_path) == "NVIDIA Jetson Orin Nano"
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA L4\nIRQ:   \t\t 61\n")
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\nGCC version: 12.2.0\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(version)
    assert gpu_name(tmp_path) == "NVIDIA L4 driver 550.54.15"


def switching(build, **more):
    return Switching(load("onnxrt", add_model()), model="m", what="x builds", build=build, **more)


def test_the_next_provider_serves_until_the_engine_is_ready():
    go, clock = threading.Event(), HandClock()

    def build(stopping):
        assert go.wait(PATIENCE_S)
        return load("onnxrt", add_model(), spinning="off")

    backend = switching(build, clock=clock)
    given = zeros_for(backend)
    first = backend.run(given)["y"].copy()
    clock.now_ns += int(150e9)
    assert backend.execution.building == "x builds (2 min so far); cpu serves meanwhile"
    serving = backend._current
    go.set()
    assert backend.wait(PATIENCE_S)
    assert backend.execution.building == ""
    assert backend._current is serving  # the change is made between two runs
    np.testing.assert_array_equal(backend.run(given)["y"], first)
    assert backend._current is not serving
    backend.close()
    backend.close()


def test_a_build_that_fails_leaves_the_next_provider_and_says_so(caplog):
    def build(stopping):
        raise ModelError("model 'm': the process that builds its engine crashed with SIGSEGV")

    backend = switching(build)
    assert backend.wait(PATIENCE_S)
    assert backend.execution.building == ""
    assert "x builds: it failed and is not used: model 'm': the process" in backend.execution.notes[-1]
    assert backend.run(zeros_for(backend))["y"].shape == (1, 3, 4, 4)
    assert "what serves goes on" in caplog.text


def test_an_engine_of_another_shape_is_not_used():
    backend = switching(lambda stopping: load("onnxrt", add_model(("N", 3, "H", "W"))))
    assert backend.wait(PATIENCE_S)
    assert "other inputs or outputs" in backend.execution.notes[-1]


def test_closing_gives_the_build_up():
    model = ModelFile(name="m", content=b"", sha256="")

    def build(stopping):
        # A real child, which would go on for an hour.
        child.call("child_support:hang", {}, deadline_s=3600, stopping=stopping)
        raise AssertionError

    def in_words(stopping):
        try:
            build(stopping)
        except child.ChildGoneError as failure:
            raise ModelError(f"{model.name}: {failure}") from failure

    backend = switching(in_words)
    backend.close()
    assert backend.wait(PATIENCE_S)


def test_the_list_with_its_engine_s_builder_from_end_to_end(tmp_path, monkeypatch):
    """With a provider of this build in TensorRT's place, that starts everywhere and takes no node."""
    onnxruntime = pytest.importorskip("onnxruntime")
    stand_in = "AzureExecutionProvider"
    if stand_in not in onnxruntime.get_available_providers():
        pytest.skip(f"this build of ONNX Runtime has no {stand_in}")
    monkeypatch.setattr(_tensorrt, "NAME", stand_in)
    plugin = registry.load("inference", "onnxrt")
    options = plugin.Options.model_validate({"providers": [{stand_in: {"cache_dir": str(tmp_path)}}, "cpu"]})
    file = ModelFile(name="m", content=add_model(), sha256="a" * 64)
    backend = plugin.create(options, file, BackendContext(engines="background"))
    assert isinstance(backend, Switching)
    assert backend.run(zeros_for(backend))["y"].shape == (1, 3, 4, 4)
    assert backend.wait(PATIENCE_S)
    assert backend.execution.building == ""
    assert backend.run(zeros_for(backend))["y"].shape == (1, 3, 4, 4)
    assert backend.execution.notes == (f"{stand_in} took none of the 1 nodes: it can run nothing of this model",)
    assert [folder.name[:12] for folder in tmp_path.iterdir()] == ["a" * 12]
    assert not isinstance(plugin.create(options, file, BackendContext(engines="skip")), Switching)
    (tmp_path / "file").touch()
    unwritable = plugin.Options.model_validate(
        {"providers": [{stand_in: {"cache_dir": str(tmp_path / "file")}}, "cpu"]}
    )
    with pytest.raises(StateError, match="the engine cache cannot be written to"):
        plugin.create(unwritable, file, BackendContext())
