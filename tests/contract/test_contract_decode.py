"""What every decoder must keep to: finite boxes within what the model saw, most confident first, no memory shared."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision import registry
from edgevision.decode.base import DecodeContext
from edgevision.errors import InferenceError, ModelError
from edgevision.types import UNSEEN, Classifications, Detections, Embedding, ImageTransform, Segmentation, TensorSpec

PLUGINS = registry.available("decode")

# Shapes of a small model's outputs, by role; the input is 64 x 32.
OUTPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "classifier": {"scores": (1, 7)},
    "detr": {"boxes": (1, 9, 4), "scores": (1, 9, 7)},
    "efficientdet": {
        "boxes": (1, (8 * 4 + 4 * 2 + 2 * 1 + 1 + 1) * 9, 4),
        "scores": (1, (8 * 4 + 4 * 2 + 2 * 1 + 1 + 1) * 9, 7),
    },
    "faster_rcnn": {"boxes": (6, 4), "classes": (6,), "scores": (6,)},
    "embedding": {"embedding": (1, 7)},
    "semantic": {"scores": (1, 7, 4, 8)},
    "yolox": {"predictions": (1, 8 * 4 + 4 * 2 + 2 * 1, 5 + 7)},
    "nanodet": {
        "scores_8": (1, 32, 7), "scores_16": (1, 8, 7), "scores_32": (1, 2, 7),
        "boxes_8": (1, 32, 32), "boxes_16": (1, 8, 32), "boxes_32": (1, 2, 32),
    },
    "picodet": {
        "scores_8": (1, 32, 7), "scores_16": (1, 8, 7), "scores_32": (1, 2, 7), "scores_64": (1, 1, 7),
        "boxes_8": (1, 32, 32), "boxes_16": (1, 8, 32), "boxes_32": (1, 2, 32), "boxes_64": (1, 1, 32),
    },
    "yolov5": {"predictions": (1, 126, 5 + 7)},
    "yolov10": {"predictions": (1, 30, 6)},
    "yolov8_seg": {"predictions": (1, 4 + 7 + 5, 42), "prototypes": (1, 5, 8, 16)},
    "yolov8_pose": {"predictions": (1, 4 + 7 + 17 * 3, 42)},
    "yolov8": {"predictions": (1, 4 + 7, 42)},
    "ssd": {"boxes": (1, 6, 4), "classes": (1, 6), "scores": (1, 6), "count": (1,)},
}  # fmt: skip
# Options without which a family cannot be made.
OPTIONS: dict[str, dict[str, str]] = {"semantic": {"layout": "NCHW"}}
TRANSFORM = ImageTransform(
    frame_size=(200, 100), input_size=(64, 32), scale=(0.4, 0.4), offset=(-4.0, -8.0), region=(10, 20, 170, 90)
)


def specs_of(name):
    if name not in OUTPUTS:
        pytest.fail(f"decoder {name!r} has no outputs in this test: add them to OUTPUTS")
    return {
        role: TensorSpec(name=f"tensor {role}", shape=shape, dtype=np.dtype(np.float32))
        for role, shape in OUTPUTS[name].items()
    }


def make(name, **context):
    module = registry.load("decode", name)
    return module.create(module.Options(**OPTIONS.get(name, {})), specs_of(name), DecodeContext(**context))


def tensors_of(name, seed):
    """Random outputs, a few of whose numbers are broken."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for role, spec in specs_of(name).items():
        values = rng.normal(0.5, 1.0, spec.shape).astype(np.float32)
        if name not in {"classifier", "semantic"} or (name == "semantic" and seed % 5 == 0):
            values[rng.random(spec.shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
        if role == "count":
            values = rng.integers(0, 7, spec.shape).astype(np.float32)
        if role == "classes":
            values = rng.integers(0, 7, spec.shape).astype(np.float32)
        tensors[spec.name] = values
    return tensors


@pytest.mark.parametrize("name", PLUGINS)
@given(seed=st.integers(0, 2**32 - 1), confidence=st.sampled_from([0.0, 0.3, 0.9]))
@settings(deadline=None, max_examples=60)
def test_predictions_are_sound_whatever_the_model_says(name, seed, confidence):
    tensors = tensors_of(name, seed)
    decode = make(name, confidence=confidence, max_detections=5, top_k=3, classes=frozenset({0, 1, 2, 5}))
    try:
        found = decode(tensors, TRANSFORM)
    except InferenceError:
        return  # all of its scores were broken
    kept = {key: value.copy() for key, value in vars_of(found).items()}
    for tensor in tensors.values():
        tensor[:] = -1
    for key, value in kept.items():
        np.testing.assert_array_equal(vars_of(found)[key], value)
    if isinstance(found, Embedding):
        assert found.vector.dtype == np.float32
        assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)
        return
    if isinstance(found, Segmentation):
        assert found.class_map.shape == (100, 200)
        assert found.class_map.dtype == np.uint8
        seen = found.class_map[20:90, 10:170]
        assert set(seen.ravel().tolist()) <= {0, 1, 2, 5}
        assert (found.class_map == UNSEEN).sum() == 200 * 100 - seen.size
        return
    assert np.isfinite(found.confidence).all()
    assert (found.confidence >= np.float32(confidence)).all()
    assert (np.diff(found.confidence) <= 0).all()
    assert found.confidence.dtype == np.float32
    assert found.class_id.dtype == np.int32
    assert set(found.class_id.tolist()) <= {0, 1, 2, 5}
    if isinstance(found, Detections):
        assert len(found) <= 5
        assert found.xyxy.shape == (len(found), 4)
        assert found.xyxy.dtype == np.float32
        if found.masks is not None:
            assert len(found.masks) == len(found)
            for mask in found.masks:
                assert mask is not None
                assert mask.pixels.dtype == np.bool_
                assert mask.frame_size == (200, 100)
        if found.keypoints is not None:
            assert found.keypoints.shape[0] == len(found)
            assert found.keypoints.dtype == np.float32
            assert np.isfinite(found.keypoints).all()
        left, top, right, bottom = found.xyxy.T
        assert ((left >= 10) & (top >= 20) & (right <= 170) & (bottom <= 90) & (right > left) & (bottom > top)).all()
    else:
        assert len(found) <= 3


def vars_of(found):
    if isinstance(found, Embedding):
        return {"vector": found.vector}
    if isinstance(found, Segmentation):
        return {"class_map": found.class_map}
    if isinstance(found, Detections):
        more: dict[str, Any] = {
            f"mask {row}": mask.pixels for row, mask in enumerate(found.masks or ()) if mask is not None
        }
        if found.keypoints is not None:
            more["keypoints"] = found.keypoints
        return {"xyxy": found.xyxy, "confidence": found.confidence, "class_id": found.class_id, **more}
    assert isinstance(found, Classifications)
    return {"confidence": found.confidence, "class_id": found.class_id}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_missing_role_is_named_with_all_that_are_needed(name):
    module = registry.load("decode", name)
    with pytest.raises(ModelError) as caught:
        module.create(module.Options(), {}, DecodeContext())
    for role in OUTPUTS[name]:
        assert role in str(caught.value)


@pytest.mark.parametrize("name", PLUGINS)
def test_labels_are_handed_on_as_they_are(name):
    labels = tuple("abcdefg")
    found = make(name, labels=labels)(
        {spec.name: np.full(spec.shape, 0.1, np.float32) for spec in specs_of(name).values()}, TRANSFORM
    )
    assert found.labels is labels


@pytest.mark.parametrize("name", PLUGINS)
def test_it_imports_without_a_runtime_and_without_opencv(name):
    code = (
        f"import sys, edgevision.decode.{name}; "
        "sys.exit(bool({'onnxruntime', 'ai_edge_litert', 'cv2', 'paho'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
