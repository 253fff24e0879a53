"""The benchmark with backend openvino: what it measures, and beside what."""

from typing import Any, cast

import numpy as np
import pytest

from edgevision import assembly
from edgevision.errors import UsageError
from edgevision.host.benchmark import jobs
from edgevision.host.benchmark.loops import bare_loop, reference_loop
from edgevision.host.benchmark.settings import candidates

pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgevision[openvino]'")


def test_the_bare_loop_computes_what_the_backend_does(shared):
    file = shared / "models" / "yolox_nano.onnx"
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 416, 416)).astype(np.float32)
    call = bare_loop(file.read_bytes(), "openvino", 1, pixels, "images")
    bare = cast("Any", call())[0]
    model = assembly.load_model(file, like="yolox-nano", backend="openvino", threads=1)
    np.testing.assert_array_equal(bare, model.backend.run({"images": pixels})["output"])


def test_candidates_and_the_reference():
    (one,) = candidates(["efficientnet-lite0"], backends=["openvino"])
    (other,) = candidates(["efficientnet-lite0"], backends=["onnxrt"])
    assert (one.backend, one.sha256) == ("openvino", other.sha256)
    reference = reference_loop("openvino", 1)
    assert reference is not None
    assert reference[0]()
    assert reference[1].endswith("openvino x1")


def test_a_bare_file_is_a_candidate_of_every_backend_that_reads_it(shared):
    file = str(shared / "models" / "yolox_nano.onnx")
    named = candidates([file], backends=["onnxrt", "openvino", "litert"], like="yolox-nano")
    assert [one.backend for one in named] == ["onnxrt", "openvino"]
    assert [one.backend for one in candidates([file], like="yolox-nano")] == ["onnxrt"]
    with pytest.raises(UsageError, match="is a file for onnxrt, not for litert"):
        candidates([file], backends=["litert"], like="yolox-nano")


def test_the_latency_job_has_a_bare_loop(loggers):
    job = {
        "job": "latency", "model": "efficientnet-lite0", "backend": "openvino", "threads": 1, "like": None, "providers": [],
        "size": [320, 240], "duration_s": 0.2, "bare": True, "fps": None, "spawned_ns": 0,
    }  # fmt: skip
    done = jobs.run(job, say=lambda **_line: None, ready_ns=0)
    assert done["backend"] == "openvino"
    assert done["bare"]["first_inference_ms"] > 0
    assert done["rounds"][0]["bare_ns"]
