"""Decoders against what the networks' own reference code made of the same outputs; see decoders/README.md."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevision import registry
from edgevision.decode.base import DecodeContext
from edgevision.quantization import quantize
from edgevision.types import ImageTransform, Quantization, TensorSpec

FOLDER = Path(__file__).parent / "decoders"
# By file: the decoder.
FAMILIES = {
    "nanodet": "nanodet",
    "nanodet_plus": "nanodet",
    "picodet": "picodet",
    "yolov8": "yolov8",
    "yolov8_multi_label": "yolov8",
    "yolov8_normalised": "yolov8",
    "yolov8_grids": "yolov8",
    "yolov8_raw": "yolov8",
    "yolo11_split": "yolov8",
    "yolo26_split": "yolov8",
    "yolov5": "yolov5",
    "yolov5_multi_label": "yolov5",
    "yolov5_grids": "yolov5",
    "yolov5_maps": "yolov5",
    "yolov10": "yolov10",
    "yolo26": "yolov10",
    "yolov8_seg": "yolov8_seg",
    "yolov8_seg_grids": "yolov8_seg",
    "yolo26_seg": "yolov8_seg",
    "yolov8_pose": "yolov8_pose",
    "yolo26_pose": "yolov8_pose",
}
# In the others boxes in pixels and scores are one tensor, for which eight bits have no room.
EIGHT_BITS = [
    "nanodet",
    "nanodet_plus",
    "picodet",
    "yolov8_normalised",
    "yolov8_grids",
    "yolov8_raw",
    "yolo11_split",
    "yolov5_grids",
    "yolov5_maps",
]


@dataclass(frozen=True)
class Golden:
    tensors: dict[str, Any]
    settings: dict[str, Any]
    expected: dict[str, Any]

    @property
    def transform(self):
        """Input pixels are frame pixels."""
        width, height = self.settings["size"]
        return ImageTransform(
            frame_size=(width, height), input_size=(width, height), scale=(1.0, 1.0), offset=(0.0, 0.0),
            region=(0, 0, width, height),
        )  # fmt: skip


def load(name):
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return Golden(
        tensors={key.removeprefix("tensor "): value for key, value in arrays.items() if key.startswith("tensor ")},
        settings=json.loads(str(arrays.pop("settings"))),
        expected={key: value for key, value in arrays.items() if not key.startswith("tensor ")},
    )


def make(family, golden, *, specs=None, **context):
    module = registry.load("decode", family)
    specs = specs or {
        role: TensorSpec(name=role, shape=tensor.shape, dtype=tensor.dtype) for role, tensor in golden.tensors.items()
    }
    chosen = {"confidence": golden.settings["confidence"], "iou": golden.settings["iou"], "max_detections": 1000}
    return module.create(
        module.Options(**golden.settings["decoder"]),
        specs,
        DecodeContext(**{**chosen, **context}, activation=golden.settings.get("activation", "none")),
    )


def paint(mask):
    """A mask in the whole frame, (H, W)."""
    width, height = mask.frame_size
    canvas = np.zeros((height, width), bool)
    h, w = mask.pixels.shape
    canvas[mask.top : mask.top + h, mask.left : mask.left + w] = mask.pixels
    return canvas


def by_confidence(expected, golden):
    """The reference's boxes, clipped to the picture as results always are; those that lie outside are none."""
    width, height = golden.settings["size"]
    xyxy = expected["xyxy"].clip(0, (width, height, width, height))
    order = np.argsort(-expected["confidence"], kind="stable")
    order = order[(xyxy[order, 2:] > xyxy[order, :2]).all(axis=1)]
    return xyxy[order], order


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_code_s_own_result(name):
    golden = load(name)
    found = make(FAMILIES[name], golden)(golden.tensors, golden.transform)
    xyxy, order = by_confidence(golden.expected, golden)
    assert len(found) == len(xyxy) > 10
    np.testing.assert_allclose(found.confidence, golden.expected["confidence"][order], atol=1e-5)
    np.testing.assert_array_equal(found.class_id, golden.expected["class_id"][order])
    np.testing.assert_allclose(found.xyxy, xyxy, atol=2e-3)
    if "keypoints" in golden.expected:
        # The reference does not clip them before they are in the picture's pixels.
        width, height = golden.settings["size"]
        expected = golden.expected["keypoints"][order].clip(0, (width, height, 1))
        np.testing.assert_allclose(found.keypoints, expected, atol=2e-3)
    if "masks" in golden.expected:
        width, height = golden.settings["size"]
        expected = np.unpackbits(golden.expected["masks"], axis=2, count=width)[order].astype(bool)
        painted = np.stack([paint(mask) for mask in found.masks])
        assert expected.any(axis=(1, 2)).mean() > 0.8
        # A sum of 0 but for its last digit may fall on either side.
        assert (painted != expected).mean() < 1e-4


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_eight_bits_are_within_their_step_of_it(name):
    """No NMS and no threshold in between: every candidate, one class a cell, in float and in int8."""
    golden = load(name)
    specs, integers, widened = {}, {}, {}
    for role, tensor in golden.tensors.items():
        low, high = min(0.0, float(tensor.min())), float(tensor.max())
        scale = np.float32((high - low) / 255)
        zero_point = round(-128 - low / scale)
        quantization = Quantization(scale=np.array([scale]), zero_point=np.array([zero_point], np.int32))
        specs[role] = TensorSpec(name=role, shape=tensor.shape, dtype=np.dtype(np.int8), quantization=quantization)
        integers[role] = quantize(tensor, quantization, np.dtype(np.int8))
        widened[role] = (integers[role].astype(np.float32) - zero_point) * scale
    context = {"confidence": golden.settings["confidence"], "iou": 1.0, "max_detections": 100_000}
    first = make(FAMILIES[name], golden, specs=specs, **context)(integers, golden.transform)
    second = make(FAMILIES[name], golden, **context)(widened, golden.transform)
    third = make(FAMILIES[name], golden, **context)(golden.tensors, golden.transform)
    np.testing.assert_array_equal(first.confidence, second.confidence)
    np.testing.assert_array_equal(first.class_id, second.class_id)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    assert abs(len(first) - len(third)) <= 0.25 * len(third)  # those within a step of the threshold
