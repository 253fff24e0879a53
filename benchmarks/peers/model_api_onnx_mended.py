"""openvino-model-api's YOLOX wrapper on ONNX Runtime, with the repair that makes it run."""

from __future__ import annotations

from pathlib import Path

from peer import MODEL_API, Looker

REQUIREMENTS = MODEL_API
TASKS = ("yolox-onnx",)
NOTE = "its YOLOX wrapper, mended by us; stops at predictions"


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import cv2
    import onnxruntime
    from model_api.adapters import ONNXRuntimeAdapter
    from model_api_mended import wrapper
    from model_api_onnx import tell

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    adapter = ONNXRuntimeAdapter(str(model), {"sess_options": options, "providers": ["CPUExecutionProvider"]})
    return Looker(look=wrapper(adapter, model_type="SSD"), tell=tell)
