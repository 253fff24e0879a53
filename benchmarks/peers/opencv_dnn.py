"""OpenCV's own DNN module, with the careful script's letterbox and decoder around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peer import ONNXRT, Looker

REQUIREMENTS = ONNXRT
TASKS = ("yolox-onnx", "yolox-tflite")
NOTE = "OpenCV's own inference; decoded by hand; makes a JSON message too"


def make(task: str, model: Path, threads: int) -> Looker:
    """Load the model."""
    import by_hand
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(model)) if task == "yolox-onnx" else cv2.dnn.readNetFromTFLite(str(model))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    size = 416
    decode = by_hand.yolox_decoder(size)

    def look(image: Any) -> Any:
        tensor, scale = by_hand.letterbox(image, size)
        net.setInput(tensor)
        rows = net.forward()[0]
        return by_hand.message(by_hand.clip(decode(rows, scale), image))

    return Looker(look=look, tell=lambda result: list(result[0]))
