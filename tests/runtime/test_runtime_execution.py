"""The device's status tells where each model's operators run, and follows an engine that is built while another serves."""

import pytest
from runtime_support import Watched, make

from edgevision.inference import _tensorrt

STAND_IN = "AzureExecutionProvider"
"""A provider of PyPI's builds that starts everywhere and takes no node: here in TensorRT's place."""


def test_the_status_follows_a_build_from_the_next_provider_to_the_engine(tmp_path, monkeypatch, caplog):
    onnxruntime = pytest.importorskip("onnxruntime")
    if STAND_IN not in onnxruntime.get_available_providers():
        pytest.skip(f"this build of ONNX Runtime has no {STAND_IN}")
    monkeypatch.setattr(_tensorrt, "NAME", STAND_IN)
    options = {"providers": [{STAND_IN: {"cache_dir": str(tmp_path)}}, {"xnnpack": {"optional": True}}, "cpu"]}
    models = {"m": {"model": "efficientnet-lite0", "backend": "onnxrt", "options": options, "probe": "never"}}
    with Watched(make(models, tmp_path)) as daemon:
        building = daemon.wait_for(
            "status", lambda told: told["models"] and told["models"]["m"]["execution"]["building"]
        )
        execution = building["models"]["m"]["execution"]
        assert execution["building"] == "tensorrt builds its engine (0 min so far); cpu serves meanwhile"
        assert execution["shares"] == {"cpu": 1.0}
        assert "build ONNX Runtime with --use_xnnpack" in execution["left_out"]["xnnpack"]
        daemon.wait_for("m-eye/results")
        ready = daemon.wait_for("status", lambda told: told["models"] and told["models"]["m"]["execution"]["notes"])
        execution = ready["models"]["m"]["execution"]
        assert execution["building"] == ""
        assert f"{STAND_IN} took none of the" in execution["notes"][0]
    assert "where the model runs" in caplog.text
