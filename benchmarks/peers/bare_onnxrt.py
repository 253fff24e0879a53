"""The limit: ONNX Runtime alone on a tensor that is ready, with its defaults."""

from __future__ import annotations

from pathlib import Path

from peer import ONNXRT, Looker

REQUIREMENTS = ONNXRT
TASKS = ("yolox-onnx",)
NOTE = "the inference call alone, on one ready tensor: no picture is looked at"


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (spec,) = session.get_inputs()
    feed = {spec.name: np.full(spec.shape, 114, np.float32)}
    return Looker(look=lambda _: session.run(None, feed), tell=None)
