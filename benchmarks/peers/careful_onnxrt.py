"""A careful script around ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peer import ONNXRT, Looker

REQUIREMENTS = ONNXRT
TASKS = ("yolox-onnx",)
NOTE = "written by hand for this one model; makes a JSON message too"


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import by_hand
    import cv2
    import onnxruntime

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (spec,) = session.get_inputs()
    size = spec.shape[2]
    decode = by_hand.yolox_decoder(size)

    def look(image: Any) -> Any:
        tensor, scale = by_hand.letterbox(image, size)
        rows = session.run(None, {spec.name: tensor})[0][0]
        return by_hand.message(by_hand.clip(decode(rows, scale), image))

    return Looker(look=look, tell=lambda result: list(result[0]))
