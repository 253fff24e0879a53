"""openvino-model-api's YOLOX wrapper on its ONNX Runtime adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peer import CONFIDENCE, IOU, MODEL_API, Looker, Prediction

REQUIREMENTS = MODEL_API
TASKS = ("yolox-onnx",)
NOTE = "as released; its YOLOX wrapper; stops at predictions"
CONFIGURATION = {"confidence_threshold": CONFIDENCE, "iou_threshold": IOU, "agnostic_nms": False}


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import cv2
    import onnxruntime
    from model_api.adapters import ONNXRuntimeAdapter
    from model_api.models import Model

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    adapter = ONNXRuntimeAdapter(str(model), {"sess_options": options, "providers": ["CPUExecutionProvider"]})
    wrapper = Model.create_model(adapter, model_type="YOLOX", configuration=CONFIGURATION)
    return Looker(look=wrapper, tell=tell)


def tell(result: Any) -> list[Prediction]:
    """Predictions of a `DetectionResult`."""
    return [
        (int(label), float(score), (float(box[0]), float(box[1]), float(box[2]), float(box[3])))
        for label, score, box in zip(result.labels, result.scores, result.bboxes, strict=True)
    ]
