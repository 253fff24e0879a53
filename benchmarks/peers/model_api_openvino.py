"""openvino-model-api's YOLOX wrapper on its OpenVINO adapter."""

from __future__ import annotations

from pathlib import Path

from peer import MODEL_API, Looker

REQUIREMENTS = MODEL_API
TASKS = ("yolox-onnx",)
NOTE = "as released; its YOLOX wrapper on OpenVINO, which is another runtime than the bare loop's; stops at predictions"


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import cv2
    from model_api.models import Model
    from model_api_onnx import CONFIGURATION, tell

    cv2.setNumThreads(1)
    wrapper = Model.create_model(
        str(model), model_type="YOLOX", configuration=CONFIGURATION, device="CPU", nthreads=threads
    )
    return Looker(look=wrapper, tell=tell)
