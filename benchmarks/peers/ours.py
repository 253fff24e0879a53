"""edgevision's own way from a frame to a message, as its daemon goes it; `like` says which model the file is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
from peer import CONFIDENCE, IOU, MOST, Looker, Prediction

from edgevision import assembly
from edgevision.messages import Composer, ModelRef
from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options, create
from edgevision.types import Detections, Frame

LIKE = {
    "yolox-onnx": "yolox-nano",
    "yolox-tflite": "yolox-nano",
    "ssd-tflite": "ssd-mobilenet-v1-quant",
    "mobilenet-tflite": "mobilenet-v2-quant",
}


def make(task: str, file: Path, threads: int) -> Looker:
    """Load the model."""
    cv2.setNumThreads(1)  # as the daemon does
    asked: dict[str, Any] = {"yolox": {"iou": IOU, "max_detections": MOST}}.get(task.partition("-")[0], {})
    if task != "mobilenet-tflite":
        asked["confidence"] = CONFIDENCE
    model = assembly.load_model(file, like=LIKE[task], threads=threads, **asked)
    reference = ModelRef(name=model.name, version=model.manifest.version, sha256=model.sha256)
    composer = Composer(topic="edgevision", device="bench", version="0")
    sink = create(Options(), SinkContext(device="bench"))

    def look(image: Any) -> Any:
        frame = Frame(
            image=image, camera="a", sequence=0, captured_at_ns=time.time_ns(), captured_mono_ns=time.monotonic_ns()
        )
        found, times = model.run(frame)
        sink.publish(composer.result(frame, found, times, model=reference, state="live", dropped=0))
        return found

    return Looker(look=look, tell=tell)


def tell(found: Any) -> list[Prediction]:
    """Predictions of a Detections or Classifications."""
    labels, scores = found.class_id.tolist(), found.confidence.tolist()
    boxes = [tuple(box) for box in found.xyxy.tolist()] if isinstance(found, Detections) else [None] * len(labels)
    return list(zip(labels, scores, boxes, strict=True))
