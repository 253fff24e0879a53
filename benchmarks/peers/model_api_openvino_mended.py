"""openvino-model-api's YOLOX wrapper on OpenVINO, with the repair that makes it run."""

from __future__ import annotations

from pathlib import Path

from peer import MODEL_API, Looker

REQUIREMENTS = MODEL_API
TASKS = ("yolox-onnx",)
NOTE = "its YOLOX wrapper, mended by us, on OpenVINO, which is not the bare loop's runtime; stops at predictions"


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import cv2
    from model_api.adapters import OpenvinoAdapter, create_core
    from model_api.adapters.openvino_adapter import get_user_config
    from model_api_mended import wrapper
    from model_api_onnx import tell

    cv2.setNumThreads(1)
    settings = get_user_config("CPU", "1", threads)
    adapter = OpenvinoAdapter(create_core(), str(model), device="CPU", plugin_config=settings)
    return Looker(look=wrapper(adapter, model_type="YOLOX"), tell=tell)
