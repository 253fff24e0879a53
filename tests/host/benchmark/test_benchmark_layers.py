"""What a profile says: of invented events, and of a real quantised model."""

import numpy as np
import pytest

from edgevision.environment import shipped_models_dir
from edgevision.host.benchmark import layers
from edgevision.manifest import load_manifest, read_weights


def _event(node, operator, dur, provider="CPUExecutionProvider", index="1"):
    more = {"op_name": operator, "provider": provider, "node_index": index}
    return {"cat": "Node", "name": f"{node}_kernel_time", "dur": dur, "args": more}


def test_a_profile_is_summed_by_operator_node_and_provider():
    once = [
        _event("a", "QLinearConv", 100),
        _event("b", "QLinearConv", 50, index="2"),
        _event("c", "Conv", 30, provider="CUDAExecutionProvider"),
        _event("d", "Add", 20),
    ]
    warm_up = [{**event, "dur": 9999} for event in once]
    others = [{"cat": "Session", "name": "model_run", "dur": 7}, {"cat": "Node", "name": "a_fence_before", "dur": 7}]
    found = layers.summarise([*warm_up, *others, *once, *once], skip=1)
    assert (found["calls"], found["total_us"]) == (2, 200.0)
    assert found["operators"][0] == {"operator": "QLinearConv", "count": 2, "mean_us": 150.0, "share": 0.75}
    assert found["nodes"][0] == {"node": "a", "operator": "QLinearConv", "mean_us": 100.0, "share": 0.5}
    assert found["providers"]["CUDAExecutionProvider"] == {"nodes": 1, "node_share": 0.25, "time_share": 0.15}
    assert found["convolutions"] == {"integer": 2, "float": 1}
    assert layers.summarise([])["operators"] == []


def test_a_shipped_int8_models_convolutions_are_integer_kernels(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    folder = shipped_models_dir() / "efficientnet-lite0"
    content = read_weights(folder, load_manifest(folder), "onnxrt")
    import onnxruntime

    spec = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()[0]
    kind = np.uint8 if "uint8" in spec.type else np.float32
    found = layers.profile(content, {spec.name: np.zeros(spec.shape, kind)}, threads=1, calls=3)
    assert found["calls"] == 3
    assert found["convolutions"]["integer"] > 40
    assert found["convolutions"]["float"] == 0
    assert list(found["providers"]) == ["CPUExecutionProvider"]
    assert sum(one["share"] for one in found["operators"]) == pytest.approx(1, abs=0.01)
    assert list(tmp_path.iterdir()) == []  # the profile's own file is gone
