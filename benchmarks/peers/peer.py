"""What a peer is: one file that gives one way of looking at a picture, and the settings that all share.

A peer's file holds `REQUIREMENTS` (for pip), `TASKS`, perhaps a `NOTE` for the reader of the table, and

    make(task, model, threads) -> Looker

It imports its libraries inside `make`, because the coordinator, which has none of them, reads the rest. A task is a model
file with its preprocessing and decoding; it is also the name of the option that gives the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

CONFIDENCE, IOU, MOST = 0.3, 0.45, 100
"""The least confidence, the most overlap of two objects of one class, and the most objects: the same for every peer."""

REFERENCE = {
    "yolox-onnx": ("bare_onnxrt", "careful_onnxrt"),
    "yolox-tflite": ("bare_litert", "careful_litert"),
    "ssd-tflite": ("bare_litert", "careful_litert"),
    "mobilenet-tflite": ("bare_litert", "careful_litert"),
}
"""By task: the peer whose time is 1, and the peer whose predictions the others are compared with."""

PEERS = (
    "bare_onnxrt",
    "bare_litert",
    "careful_onnxrt",
    "careful_litert",
    "edgevision_onnxrt",
    "edgevision_litert",
    "model_api_onnx",
    "model_api_openvino",
    "model_api_onnx_mended",
    "model_api_openvino_mended",
    "opencv_dnn",
    "mediapipe_tasks",
)
"""In the order of the tables."""

PACKAGES = (
    "ai-edge-litert",
    "edgevision",
    "mediapipe",
    "numpy",
    "onnxruntime",
    "opencv-contrib-python",
    "opencv-python-headless",
    "openvino",
    "openvino-model-api",
)
"""Whose versions stand in the results, where a peer's environment has them."""

Prediction: TypeAlias = tuple[int, float, tuple[float, float, float, float] | None]
"""Class, confidence 0-1, box xyxy in pixels of the frame (None: the whole picture shows it)."""

ONNXRT = ("onnxruntime", "opencv-python-headless")
LITERT = ("ai-edge-litert", "opencv-python-headless")
EDGEVISION = ("edgevision[litert,onnxrt]",)
MODEL_API = ("openvino-model-api[onnx]",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """A loaded model."""

    look: Callable[[Any], Any]
    """(H, W, 3) uint8 BGR to whatever the peer gives its user: this is timed."""
    tell: Callable[[Any], list[Prediction]] | None
    """That result as predictions, not timed; None where the peer does not look at the picture."""
